"""Parts of the data sets that a processor can train on: the first images of each, as they come (they are shuffled)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from thinwire import data
from thinwire.data import Dataset


@lru_cache
def _first(name: str, train: int, test: int) -> Dataset:
    full = data.load(name)
    return Dataset(f"{name}-{train}", full.train.take(np.arange(train)), full.test.take(np.arange(test)), full.classes)


def mnist_10000() -> Dataset:
    """10,000 training images of MNIST, all 10,000 test images."""
    return _first("mnist", 10_000, 10_000)


def mnist_20000() -> Dataset:
    """20,000 training images of MNIST, all 10,000 test images."""
    return _first("mnist", 20_000, 10_000)


def cifar10_10000() -> Dataset:
    """10,000 training images of CIFAR-10, the first 4,000 test images."""
    return _first("cifar10", 10_000, 4_000)
