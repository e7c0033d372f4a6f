"""A data set in memory: two splits of numpy arrays, and the checks that every source must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from thinwire.errors import DataError

MOST_CLASSES, MOST_TOKENS = 2**16, 2**18  # of data with fewer targets than that


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their targets.

    Images: x float32 (n, channels, height, width). Tabular: x float32 (n, features). Either way y int64 (n,).
    Text: x int64 (n, 80) character ids and y int64 (n, 80), the character after each.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: np.ndarray) -> Split:
        """The samples at `indices`, in that order."""
        return Split(self.x[indices], self.y[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test split over the same classes; `columns` are further columns of train, each (n,)."""

    name: str
    train: Split
    test: Split
    classes: int
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.x.shape[1:]

    @property
    def is_text(self) -> bool:
        """Whether every position of a sample has a target, so that a sample as a whole has no label."""
        return self.train.y.ndim == 2


def first(mask: np.ndarray) -> int:
    """First row, counted from 0, at which a mask (n,) or (n, ...) holds anywhere."""
    return int(np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))[0])


def labels64(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64; those beyond it become its largest, which is refused as no class of any data set."""
    if values.dtype == np.uint64:
        values = np.minimum(values, np.uint64(2**63 - 1))
    return values.astype(np.int64)


def count_classes(splits: tuple[Split, Split], where: tuple[str, str]) -> int:
    """Classes of data that do not say how many there are: the largest target + 1; of text, of x and y.

    A model has an output for each of them, so that one stray label of 10⁹ would be out of memory: there may be as
    many classes as targets, and MOST_CLASSES (of text MOST_TOKENS, the vocabulary of a large tokeniser) in any case.

    Raises:
        DataError: a label is beyond that; the message names its row and its value.
    """
    text = splits[0].y.ndim == 2
    bound = max(MOST_TOKENS if text else MOST_CLASSES, sum(split.y.size for split in splits))
    for split, origin in zip(splits, where, strict=True):
        for column, values in (("label", split.y), ("x", split.x if text else split.y[:0])):
            if values.size and values.max() >= bound:
                row = first(values >= bound)
                value = int(values[row].max())
                allowed = f"0 to {bound - 1} for so few samples, or a Dataset that says how many classes there are"
                raise DataError(f"{origin}, column {column}, row {row}: is {value}, must be {allowed}")
    return 1 + max(int(values.max()) for split in splits for values in ((split.x, split.y) if text else (split.y,)))


def check_split(split: Split, where: str) -> None:
    """Refuse an empty or uneven split, a value that is not finite and a negative label; `where` opens the message."""
    if len(split.x) != len(split.y):
        raise DataError(f"{where}: x has {len(split.x)} rows, y has {len(split.y)}")
    if len(split) == 0:
        raise DataError(f"{where}: has no samples")
    finite = np.isfinite(split.x)
    if not finite.all():
        row = first(~finite)
        value = split.x[row][~finite[row]].ravel()[0]
        raise DataError(f"{where}, column x, row {row}: holds NaN or infinity ({value}), must be finite as float32")
    if split.x.dtype.kind == "i" and split.x.min() < 0:
        raise DataError(f"{where}, column x, row {first(split.x < 0)}: is negative ({split.x.min()}), tokens are not")
    if split.y.min() < 0:
        raise DataError(f"{where}, column label, row {first(split.y < 0)}: is negative ({split.y.min()})")


def check_dataset(dataset: Dataset, where: tuple[str, str]) -> Dataset:
    """Return the data set if both splits are sound and fit each other; `where` names train's and test's origin."""
    for split, origin in zip((dataset.train, dataset.test), where, strict=True):
        check_split(split, origin)
        if split.y.max() >= dataset.classes:
            row = first(split.y >= dataset.classes)
            said = f"is {split.y[row].max()}, must be below the {dataset.classes} classes"
            raise DataError(f"{origin}, column label, row {row}: {said}")
    if dataset.test.x.shape[1:] != dataset.shape:
        raise DataError(f"{where[1]}: samples have shape {dataset.test.x.shape[1:]}, those of train {dataset.shape}")
    for name, values in dataset.columns.items():
        if len(values) != len(dataset.train):
            raise DataError(f"{where[0]}, column {name}: has {len(values)} rows, x has {len(dataset.train)}")
    return dataset
