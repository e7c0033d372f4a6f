"""A data set in memory: two splits of numpy arrays, and the checks that every source must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from thinwire.errors import DataError


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


def check_split(split: Split, where: str) -> None:
    """Refuse an empty or uneven split, a value that is not finite and a negative label; `where` opens the message."""
    if len(split.x) != len(split.y):
        raise DataError(f"{where}: x has {len(split.x)} rows, y has {len(split.y)}")
    if len(split) == 0:
        raise DataError(f"{where}: has no samples")
    finite = np.isfinite(split.x)
    if not finite.all():
        raise DataError(f"{where}, column x, row {first(~finite)}: holds NaN or infinity")
    if split.y.min() < 0:
        raise DataError(f"{where}, column label, row {first(split.y < 0)}: is negative ({split.y.min()})")


def check_dataset(dataset: Dataset, where: tuple[str, str]) -> Dataset:
    """Return the data set if both splits are sound and fit each other; `where` names train's and test's origin."""
    for split, origin in zip((dataset.train, dataset.test), where, strict=True):
        check_split(split, origin)
        if split.y.max() >= dataset.classes:
            row = first(split.y >= dataset.classes)
            raise DataError(f"{origin}, column label, row {row}: is not below the {dataset.classes} classes")
    if dataset.test.x.shape[1:] != dataset.shape:
        raise DataError(f"{where[1]}: samples have shape {dataset.test.x.shape[1:]}, those of train {dataset.shape}")
    for name, values in dataset.columns.items():
        if len(values) != len(dataset.train):
            raise DataError(f"{where[0]}, column {name}: has {len(values)} rows, x has {len(dataset.train)}")
    return dataset
