"""Seeded Hadamard rotations of a flat vector, block by block: what `eden` and `drive` stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from thinwire import rng
from thinwire.codecs.base import Context
from thinwire.codecs.checks import runs
from thinwire.codecs.kernels import njit
from thinwire.layout import Layout

LARGEST_BLOCK = 2**13
SMALLEST_CUT = 2**10


@njit(cache=True)
def hadamard(v: np.ndarray) -> None:
    """v <- H v in place, H the ±1 Hadamard matrix in Sylvester's order; the size of v is a power of two.

    Only additions, from neighbours outward: alike on all machines in float32.
    """
    half = 1
    while half < v.size:
        for start in range(0, v.size, 2 * half):
            for i in range(start, start + half):
                a, b = v[i], v[i + half]
                v[i] = a + b
                v[i + half] = a - b
        half *= 2


def cuts(layout: Layout) -> list[tuple[int, int, int]]:
    """(start, entries, size) of every block: powers of two cut off a tensor from the front, the last one padded.

    While 1024 entries are left, the largest power of two that fits, at most 8192; then all that is left, its size the
    next power of two.
    """
    found = []
    for at, left in zip(*(run.tolist() for run in runs(layout)), strict=True):
        while left:
            size = min(LARGEST_BLOCK, 1 << (left.bit_length() - 1))
            size = size if left >= SMALLEST_CUT else 1 << (left - 1).bit_length()
            entries = min(left, size)
            found.append((at, entries, size))
            at, left = at + entries, left - entries
    return found


def sent_of(size: int, share: float) -> int:
    """How many of a block's rotated entries travel: k = ⌈share · d⌉, all of them at a share of 1 or more."""
    return min(size, ceil(share * size))


@dataclass(frozen=True)
class Block:
    """A run of the vector, the signs (d,) ±1 of its rotation, and which of the d rotated entries travel, ascending."""

    place: slice
    signs: np.ndarray
    sent: slice | np.ndarray

    @property
    def entries(self) -> int:
        """Entries of the vector, padding not counted."""
        return int(self.place.stop - self.place.start)


def rotations(context: Context, share: float) -> Iterator[Block]:
    """The blocks in order, each with its part of the randomness that both ends share.

    A set bit of stream `eden-signs` is a −1, one bit an entry of all padded blocks. With a share below 1, a block's
    stratum j holds the rotated entries ⌊j d / k⌋ to ⌊(j + 1) d / k⌋, and the next 32 raw bits w of stream `eden-sample`
    (low half of a word first) take the one at ⌊w · width / 2³²⌋.
    """
    plan = cuts(context.layout)
    flips = rng.raw_bits(context.seed, "eden-signs", sum(size for _, _, size in plan))
    draws = _draws(context, sum(sent_of(size, share) for _, _, size in plan) if share < 1 else 0)
    for start, entries, size in plan:
        signs, flips = 1 - 2 * flips[:size].astype(np.float32), flips[size:]
        sent: slice | np.ndarray = slice(None)
        if share < 1:
            sent, draws = _sample(size, draws[: sent_of(size, share)]), draws[sent_of(size, share) :]
        yield Block(slice(start, start + entries), signs, sent)


def _draws(context: Context, count: int) -> np.ndarray:
    """32 raw bits for each entry that travels.  # (count,) uint64"""
    words = rng.raw_words(context.seed, "eden-sample", (count + 1) // 2)
    return words.astype("<u8").view("<u4")[:count].astype(np.uint64)


def _sample(size: int, draws: np.ndarray) -> np.ndarray:
    """One place of each of k equal strata of 0 … size − 1, k the number of draws.  # (k,) int64"""
    edges = np.arange(draws.size + 1) * size // draws.size
    widths = np.diff(edges).astype(np.uint64)
    return edges[:-1] + (draws * widths >> np.uint64(32)).astype(np.int64)
