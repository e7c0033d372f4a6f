"""float16's bits are numpy's, for every float16, every midpoint between two, and random words of any kind."""

import numpy as np
import pytest

from thinwire.codecs.dense import BLOCK, half_bits


def expected(x):
    """numpy's cast, finite entries saturated."""
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(x), np.clip(x, -65504, 65504), x).astype(np.float16).view(np.uint16)


def every_half():
    with np.errstate(invalid="ignore"):
        return np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)


def midpoints():
    ordered = np.sort(every_half()[np.isfinite(every_half())]).astype(np.float64)
    return ((ordered[1:] + ordered[:-1]) / 2).astype(np.float32)


def words():
    return np.random.default_rng(0).integers(0, 2**32, 500_000).astype(np.uint32).view(np.float32)


def edges():
    near = np.array([0x33000000, 0x33000001, 0x387FFFFF, 0x38800000, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x7F7FFFFF,
                     0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0, 1], dtype=np.uint32)  # fmt: skip
    return np.concatenate([near, near | 0x80000000]).view(np.float32)


@pytest.mark.parametrize("make", [every_half, midpoints, words, edges])
def test_bits_are_those_of_the_cast(make):
    x = make()
    np.testing.assert_array_equal(half_bits(x), expected(x))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_any_size(size):
    x = np.random.default_rng(size).normal(0, 1e-3, size).astype(np.float32)
    np.testing.assert_array_equal(half_bits(x), expected(x))
