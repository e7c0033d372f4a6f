"""The one place that drives a partitioner of flwr-datasets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


def deal(partitioner: Partitioner, keys: np.ndarray) -> list[np.ndarray]:
    """Let a partitioner divide rows that it knows by the column `key` alone.

    # keys (n,) -> row numbers of each partition, a list of (size,) int64
    """
    from datasets import Dataset

    # the arrow format spares a Python object for every value
    rows = Dataset.from_dict({"key": keys, "row": np.arange(len(keys))}).with_format("arrow")
    with _quiet():
        partitioner.dataset = rows
        return [_rows(partitioner, client) for client in range(partitioner.num_partitions)]


def _rows(partitioner: Partitioner, client: int) -> np.ndarray:
    return partitioner.load_partition(client)[:]["row"].to_numpy().astype(np.int64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NaturalIdPartitioner's progress bar, and a warning of pyarrow about `Dataset.sort`, from the user."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.filterwarnings("ignore", "Specifying null_placement in SortOptions", FutureWarning)
        yield
