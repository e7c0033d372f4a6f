"""From a data set's name, folder or function to arrays in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thinwire.data.catalogue import DATASETS, DatasetInfo
from thinwire.data.columns import extras, labels, numbers
from thinwire.data.custom import custom_dataset
from thinwire.data.dataset import Dataset, Split, check_dataset, count_classes
from thinwire.data.digits import digits_dataset
from thinwire.data.images import decode, moments, standardise
from thinwire.data.tables import Table, folder_tables, named_tables
from thinwire.data.text import text_dataset
from thinwire.errors import ConfigError, DataError, one_of


def load(name: str) -> Dataset:
    """Load a data set into memory.

    `name` is a name in DATASETS ($THINWIRE_DATA/<name>/{train,test}.parquet if there, else the Hugging Face hub), a
    folder with train.parquet and test.parquet, or `module:function` (see `custom_dataset`). A table holds `image`
    and `label`, or `x` (lists of numbers of one shape) and `label`, or `text`; its other columns serve
    `natural:COLUMN`. Images are standardised per channel: by fixed constants for a name, by the moments of train
    for a folder. `x` is taken as it is.

    >>> load("digits").shape
    (1, 8, 8)

    Raises:
        ConfigError: there is no such data set.
        DataError: the data cannot be had or cannot be used; one line names the file, the column and the row.
    """
    if name == "digits":
        return digits_dataset()
    if name in DATASETS:
        return _assemble(name, *named_tables(name, DATASETS[name]), DATASETS[name])
    if name and Path(name).is_dir():
        return _assemble(name, *folder_tables(Path(name)), DatasetInfo(name))
    if ":" in name:
        return custom_dataset(name)
    allowed = one_of(name, DATASETS, ", a folder with train.parquet and test.parquet, or module:function")
    raise ConfigError("data", name, allowed)


def _assemble(name: str, train: Table, test: Table, info: DatasetInfo) -> Dataset:
    """Turn two tables into a checked data set, by the kind of column that train has."""
    train, test = train.renamed(info.rename), test.renamed(info.rename)
    for table in (train, test):
        if table.rows.num_rows == 0:
            raise DataError(f"{table.where}: has no rows")
    kind = _kind(train)
    if kind == "text":
        return text_dataset(name, train, test)
    y = labels(train), labels(test)
    x = _images(train, test, info) if kind == "image" else (numbers(train), numbers(test))
    splits, where = (Split(x[0], y[0]), Split(x[1], y[1])), (train.where, test.where)
    classes = info.classes or count_classes(splits, where)
    return check_dataset(Dataset(name, *splits, classes, extras(train, {kind, "label"})), where)


def _kind(table: Table) -> str:
    """Which of the three kinds of data a table holds."""
    for kind in ("image", "x", "text"):
        if kind in table.rows.column_names:
            return kind
    raise DataError(f"{table.where}: has none of the columns image, x, text, only {', '.join(table.rows.column_names)}")


def _images(train: Table, test: Table, info: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    """Decode and standardise both splits.  # -> float32 (n, channels, height, width) each."""
    pixels = decode(train)
    mean, std = (np.array(info.mean), np.array(info.std)) if info.mean else moments(pixels)

    def scaled(table: Table, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1] != len(mean):
            raise DataError(f"{table.where}, column image: has {pixels.shape[1]} channels, must have {len(mean)}")
        return standardise(pixels, mean, std)

    return scaled(train, pixels), scaled(test, decode(test))
