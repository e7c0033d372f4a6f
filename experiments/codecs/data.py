"""The 20,000 images that 10 clients x 2,000 are dealt from: the first third of MNIST's training images."""

from __future__ import annotations

import numpy as np

from thinwire import data
from thinwire.data import Dataset


def mnist_20000() -> Dataset:
    """20,000 training images of MNIST, all 10,000 test images."""
    full = data.load("mnist")
    return Dataset("mnist-20000", full.train.take(np.arange(20_000)), full.test, full.classes)
