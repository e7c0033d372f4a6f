"""A decoded vector as the entries that are not 0, and how it is added to a sum without a copy of its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thinwire.codecs.base import Codec, Context
from thinwire.codecs.kernels import njit
from thinwire.layout import Layout


@dataclass(frozen=True, eq=False)
class Entries:
    """A vector (size,) float32 that is 0 but for `values` (m,) float32 at `places` (m,) int64, each named once."""

    size: int
    places: np.ndarray
    values: np.ndarray

    def dense(self) -> np.ndarray:
        """The vector itself.  # (size,) float32"""
        x = np.zeros(self.size, dtype=np.float32)
        x[self.places] = self.values
        return x


Vector = np.ndarray | Entries
Reader = Callable[[Codec, bytes, Context], Vector]


def read(codec: Codec, payload: bytes, context: Context) -> Vector:
    """What `codec.decode` gives, as entries where the codec has them (a method `entries`)."""
    has: Callable[[bytes, Context], Vector] | None = getattr(codec, "entries", None)
    return has(payload, context) if has else codec.decode(payload, context)


def dense(x: Vector) -> np.ndarray:
    """The vector itself."""
    return x.dense() if isinstance(x, Entries) else x


def values(x: Vector) -> np.ndarray:
    """All entries of a vector, or those that may differ from 0."""
    return x.values if isinstance(x, Entries) else x


def add(total: np.ndarray, x: Vector, weight: float) -> None:
    """total += weight · x, each product and each sum rounded to float64 once, in place.  # (n,) float64"""
    if isinstance(x, Entries):
        total[x.places] += np.multiply(x.values, weight, dtype=np.float64)
        return
    _same_shape(total, x)
    _add(total, x, float(weight))


def _same_shape(total: np.ndarray, x: np.ndarray) -> None:
    if x.shape != total.shape:
        raise ValueError(f"an array of shape {x.shape} cannot be added to one of {total.shape}")


def add_signs(total: np.ndarray, x: Vector) -> None:
    """total += sign(x), in place.  # (n,) float64"""
    if isinstance(x, Entries):
        total[x.places] += np.sign(x.values)
        return
    _same_shape(total, x)
    _add_signs(total, x)


def magnitudes(x: Vector, layout: Layout) -> np.ndarray:
    """Σ |xᵢ| of every tensor.  # (tensors,) float64"""
    if isinstance(x, Entries):
        ends = np.cumsum(layout.sizes)
        tensors = np.searchsorted(ends, x.places, side="right")
        return np.bincount(tensors, np.abs(x.values), minlength=len(ends))
    return np.array([np.abs(x[entry.slice]).sum(dtype=np.float64) for entry in layout])


@njit(cache=True)
def _add_signs(total, x):  # type: ignore[no-untyped-def]
    for index in range(total.size):
        if x[index] > 0:
            total[index] += 1
        elif x[index] < 0:
            total[index] -= 1


@njit(cache=True)
def _add(total, x, weight):  # type: ignore[no-untyped-def]
    for index in range(total.size):
        total[index] += np.float64(x[index]) * weight
