"""Data sets as numpy arrays, and their partition among clients. The data never depend on a run's seed."""

from __future__ import annotations

from thinwire.data.catalogue import DATASETS, DatasetInfo
from thinwire.data.dataset import Dataset, Split
from thinwire.data.loading import load
from thinwire.data.partition import partition, split_local

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Split", "load", "partition", "split_local"]
