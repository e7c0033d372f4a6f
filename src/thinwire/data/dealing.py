"""The one place that drives a partitioner of flwr-datasets."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import Partitioner


class _Keys(Dataset):
    """What a partitioner sees: the column `key`. Rows chosen of it are their numbers, which no table is made of."""

    def select(self, indices: Any, **options: Any) -> Any:
        """The row numbers themselves.  # (size,) int64."""
        return np.asarray(indices, dtype=np.int64)

    def sort(self, *args: Any, **options: Any) -> Dataset:
        """Itself: only ShardPartitioner sorts, and it is given keys in ascending order."""
        return self


def deal(partitioner: Partitioner, keys: np.ndarray) -> list[np.ndarray]:
    """Let a partitioner divide rows that it knows by the column `key` alone.

    # keys (n,) -> row numbers of each partition, a list of (size,) int64
    """
    rows: Any = _Keys.from_dict({"key": keys})
    with redirect_stderr(StringIO()):  # NaturalIdPartitioner's progress bar
        partitioner.dataset = rows.with_format("arrow")  # spares a Python object for every value
        return [np.asarray(partitioner.load_partition(client)) for client in range(partitioner.num_partitions)]
