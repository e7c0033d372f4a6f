"""The 1,797 handwritten digits that come with scikit-learn: real data without a network.

E. Alpaydin, C. Kaynak: "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import numpy as np

from thinwire.data.catalogue import DATASETS
from thinwire.data.dataset import Dataset, Split
from thinwire.rng import generator

TRAIN = 1_437  # of 1,797; the other 360 are for testing


def digits_dataset() -> Dataset:
    """8×8 grey images, standardised by fixed constants; the split is one fixed shuffle, whatever the run's seed."""
    from sklearn.datasets import load_digits

    (mean,), (std,) = DATASETS["digits"].mean, DATASETS["digits"].std
    images, labels = load_digits(return_X_y=True)  # (1797, 64) in 0..16, (1797,)
    x = ((images / 16 - mean) / std).astype(np.float32).reshape(-1, 1, 8, 8)
    order = generator(0, purpose="digits/split").permutation(len(labels))
    every = Split(x, labels.astype(np.int64))
    return Dataset("digits", every.take(order[:TRAIN]), every.take(order[TRAIN:]), classes=10)
