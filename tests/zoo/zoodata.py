"""Small data of three clients with 100, 67 and 33 samples: of batches of 16 or 32 the last client's last holds one."""

import numpy as np

from thinwire.data import Dataset, Split

SAMPLES = (100, 67, 33)  # of each client
TEST = 60
LENGTH, CHARACTERS = 12, 5  # of a text


def _dataset(name: str, x: np.ndarray, y: np.ndarray, classes: int) -> Dataset:
    site = np.repeat([f"site-{number}" for number in range(len(SAMPLES))], SAMPLES)
    count = len(site)
    return Dataset(name, Split(x[:count], y[:count]), Split(x[count:], y[count:]), classes, {"site": site})


def _labelled(name: str, shape: tuple[int, ...]) -> Dataset:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(sum(SAMPLES) + TEST, *shape)).astype("float32")
    flat = x.reshape(len(x), -1)
    y = (flat @ draw.normal(size=(flat.shape[1], 3))).argmax(1)
    return _dataset(name, x, y, 3)


def vectors() -> Dataset:
    """x (n, 6) float32, 3 classes."""
    return _labelled("vectors", (6,))


def images() -> Dataset:
    """x (n, 1, 8, 8) float32, 3 classes."""
    return _labelled("images", (1, 8, 8))


def text() -> Dataset:
    """x (n, 12) int64 of 5 characters that count upwards, y the one after each."""
    starts = np.random.default_rng(0).integers(0, CHARACTERS, (sum(SAMPLES) + TEST, 1))
    ids = (starts + np.arange(LENGTH + 1)) % CHARACTERS
    return _dataset("text", ids[:, :-1].copy(), ids[:, 1:].copy(), CHARACTERS)
