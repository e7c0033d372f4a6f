"""Where Parquet tables come from: a folder on disk, or the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinwire.data.catalogue import DatasetInfo
from thinwire.errors import DataError
from thinwire.machine import memory_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

VARIABLE = "THINWIRE_DATA"  # names the folder that holds one folder a data set
FREE_BYTES = 2**30  # which the table of a file of any size may take, and that of a larger one so many a byte:
BYTES_PER_BYTE = 1000
BATCH = 65_536  # rows at a time
_WIDTHS = {"INT32": 1, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}  # bytes of a number at the least


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
        with pq.ParquetFile(file) as parquet:
            return Table(str(file), _rows(parquet, str(file), most_bytes(file)))
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise DataError(f"{file}: is not a readable Parquet file ({_line(error)})") from error


def most_bytes(file: Path) -> int:
    """Bytes that the table in a file may take: so many a byte of the file, and half of the machine's memory."""
    return min(memory_bytes() // 2, max(FREE_BYTES, BYTES_PER_BYTE * file.stat().st_size))


def _rows(parquet: pq.ParquetFile, where: str, most: int) -> pa.Table:
    """All rows; DataError as soon as they are more than `most` bytes, as the file declares or as they are."""
    import pyarrow as pa

    chunks = _chunks(parquet.metadata)
    declared = sum(
        max(chunk.total_uncompressed_size, chunk.num_values * _WIDTHS.get(chunk.physical_type, 0)) for chunk in chunks
    )
    # of text and images, every value of a batch may be the same long one, which the file has once
    longest = max((chunk.total_uncompressed_size for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"), default=0)
    batches, found = list[pa.RecordBatch](), declared
    if declared <= most:
        found = 0
        for batch in parquet.iter_batches(max(1, min(BATCH, most // max(longest, 1)))):
            found += batch.nbytes
            if found > most:
                break
            batches.append(batch)
    if found > most:
        raise DataError(f"{where}: holds more than {most} bytes once unpacked, the most for a file of its size here")
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def _chunks(metadata: pq.FileMetaData) -> list[pq.ColumnChunkMetaData]:
    """What the file says of every column in every group of rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [group.column(column) for group in groups for column in range(group.num_columns)]


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
