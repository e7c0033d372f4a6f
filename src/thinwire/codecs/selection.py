"""Which entries are largest in magnitude: exact, O(n), ties to the lower index."""

from __future__ import annotations

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.layout import Layout

_MAGNITUDE = np.uint32(0x7FFFFFFF)  # a float32 without its sign, ordered as its magnitude
_LOW = np.uint32(15)


@njit(cache=True)
def _select(bits, k, mask):  # type: ignore[no-untyped-def]
    """Marks the k largest magnitudes: the rank k falls first to the upper 16 bits, then to the lower 15."""
    high = np.zeros(1 << 16, np.int64)
    for i in range(bits.size):
        high[(bits[i] & _MAGNITUDE) >> _LOW] += 1
    bucket, above = high.size - 1, 0
    while above + high[bucket] < k:
        above += high[bucket]
        bucket -= 1
    low = np.zeros(1 << 15, np.int64)
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude >> _LOW == bucket:
            low[magnitude & np.uint32(0x7FFF)] += 1
    rest = low.size - 1
    while above + low[rest] < k:
        above += low[rest]
        rest -= 1
    threshold, ties = np.uint32((bucket << 15) | rest), k - above
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude > threshold:
            mask[i] = 1
        elif magnitude == threshold and ties > 0:
            mask[i] = 1
            ties -= 1


def how_many(keep: float, size: int) -> int:
    """Entries kept of `size`: ⌊keep · size + ½⌋, at least 1, none of none."""
    return min(size, max(1, int(keep * size + 0.5))) if size else 0


def groups(layout: Layout, scope: str) -> list[tuple[slice, int]]:
    """Where each group of a scope stands and its size: every tensor, or (`global`) all in one."""
    if scope == "global":
        return [(slice(0, layout.size), layout.size)]
    return [(entry.slice, entry.size) for entry in layout]


def largest(x: np.ndarray, keep: float, scope: str, layout: Layout) -> np.ndarray:
    """Mask (n,) uint8 of the largest entries of every group of the scope."""
    mask = np.zeros(x.size, dtype=np.uint8)
    for span, size in groups(layout, scope):
        if size:
            _select(x[span].view(np.uint32), how_many(keep, size), mask[span])
    return mask


def magnitude_classes(shared: np.ndarray | None) -> np.ndarray | None:
    """Classes (n,) uint32 of a shared float32 array, exact on every machine: exponent and upper mantissa bits of |x|.

    Four classes an octave, counted from the smallest that occurs; zero, and what is below 2⁻¹²⁸, is class 0.
    """
    if shared is None:
        return None
    classes = (np.ascontiguousarray(shared, np.float32).view(np.uint32) & _MAGNITUDE) >> np.uint32(21)
    present = classes[classes > 0]
    return np.where(classes > 0, classes - (present.min() if present.size else 0) + 1, 0).astype(np.uint32)
