"""Where Parquet tables come from: a folder on disk, or the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinwire.data.catalogue import DatasetInfo
from thinwire.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

VARIABLE = "THINWIRE_DATA"  # names the folder that holds one folder a data set


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one split and the place they come from, which opens every error message about them."""

    where: str
    rows: pa.Table

    def column(self, name: str) -> pa.ChunkedArray:
        """One column by name, or DataError."""
        if name not in self.rows.column_names:
            raise DataError(f"{self.where}: has no column {name!r}, only {', '.join(self.rows.column_names)}")
        return self.rows.column(name)

    def renamed(self, rename: Mapping[str, str]) -> Table:
        """The same rows under new column names; names that do not occur are passed over."""
        names = [rename.get(name, name) for name in self.rows.column_names]
        return Table(self.where, self.rows.rename_columns(names))


def folder_tables(folder: Path) -> tuple[Table, Table]:
    """Read train.parquet and test.parquet, or raise DataError that names the file."""
    return _read(folder / "train.parquet"), _read(folder / "test.parquet")


def _read(file: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise DataError(f"{file}: no such file; a data folder holds train.parquet and test.parquet")
    try:
        return Table(str(file), pq.read_table(file))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: is not a readable Parquet file ({_line(error)})") from error


def named_tables(name: str, info: DatasetInfo) -> tuple[Table, Table]:
    """Read $THINWIRE_DATA/<name> if that folder is there, else fetch the data set from the hub.

    Raises:
        DataError: neither is to be had; the message says what was looked for, and how to set THINWIRE_DATA.
    """
    folder = Path(os.environ[VARIABLE]) / name if os.environ.get(VARIABLE) else None
    if folder is not None and folder.is_dir():
        return folder_tables(folder)
    try:
        train, test = (_fetch(info, split) for split in info.splits)
    except Exception as error:  # the hub client raises whatever its HTTP library, its cache and its parsers raise
        looked = f"no folder {folder}" if folder else f"{VARIABLE} is not set"
        raise DataError(
            f"data set {name!r}: {looked}, and {info.repo} cannot be fetched from the Hugging Face hub "
            f"({_line(error)}); set {VARIABLE} to a folder that holds {name}/train.parquet and {name}/test.parquet"
        ) from error
    return train, test


def _fetch(info: DatasetInfo, split: str) -> Table:
    from datasets import load_dataset

    rows = load_dataset(info.repo, revision=info.revision, split=split).with_format("arrow")[:]
    return Table(f"{info.repo} ({split})", rows)


def _line(error: Exception) -> str:
    """First line of an error's text, for messages of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
