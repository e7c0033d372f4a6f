"""Classes of entries that share one probability table, derived from what both ends hold: integers only.

With shared counts an entry's class is its count, folded to at most `bins` classes; without, it is its tensor.
Every number in BINS divides the one before, so folding twice is folding once: huge counts fold before they are tabled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

import numpy as np

from thinwire.codecs.base import Context
from thinwire.codecs.kernels import njit
from thinwire.errors import ConfigError, DecodeError

BINS = (4096, 1024, 256, 128, 64, 32, 16, 8, 4, 2, 1)
MAX_COUNT = 2**24


@dataclass(frozen=True)
class Keys:
    """Each entry's key (its count or its tensor, folded to at most `finest`) and how many keys there are."""

    index: np.ndarray  # (n,) uint32
    number: int

    @classmethod
    def of(cls, context: Context, finest: int = BINS[0]) -> Keys:
        """Keys from the shared counts if there are any, else from the layout. `finest`: one of BINS."""
        if context.shared is None:
            tensors = np.arange(len(context.layout), dtype=np.uint32)
            return cls._folded(np.repeat(tensors, context.layout.sizes), max(1, len(context.layout)), finest)
        shared = context.shared
        if shared.dtype != np.uint32 or shared.shape != (context.layout.size,):
            raise ConfigError(
                "shared", f"{shared.dtype} {shared.shape}", f"uint32 counts of shape ({context.layout.size},)"
            )
        number = int(shared.max(initial=0)) + 1
        if number > MAX_COUNT:
            raise ConfigError("shared", number - 1, f"counts below {MAX_COUNT}")
        return cls._folded(np.ascontiguousarray(shared), number, finest)

    @classmethod
    def _folded(cls, index: np.ndarray, number: int, finest: int) -> Keys:
        if number <= finest:
            return cls(index, number)
        return cls((index.astype(np.uint64) * np.uint64(finest) // np.uint64(number)).astype(np.uint32), finest)

    def fold(self, bins: int) -> np.ndarray:
        """Class of every key: key · bins // number, bins at most number.  # (number,) int64."""
        return np.arange(self.number, dtype=np.int64) * bins // self.number

    def choices(self) -> list[int]:
        """Numbers of classes worth trying, finest first; each but the finest below the number of keys."""
        return [self.number, *(bins for bins in BINS if bins < self.number)]

    def check_bins(self, bins: int) -> int:
        """The number of classes that a payload names, if the writer could have chosen it; else DecodeError."""
        if bins not in self.choices():
            raise DecodeError(f"classes: {bins} classes of {self.number} keys, one of {self.choices()} expected")
        return bins


def cheapest(keys: Keys, table: np.ndarray, table_bits: Callable[[np.ndarray], float]) -> tuple[int, np.ndarray]:
    """The number of classes whose table and entries cost least, the finest on a tie, and the counts by class.

    `table` holds counts (keys, symbols), `table_bits` the cost of sending a table of classes. Coarser classes never
    lower the cost of the entries, so the search ends where that alone reaches the best cost so far.
    """
    best, least = (0, table), float("inf")
    for bins in keys.choices():
        counts = gather(keys.fold(bins), table)
        entries = information(counts)
        if entries >= least:
            break
        if entries + table_bits(counts) < least:
            best, least = (bins, counts), entries + table_bits(counts)
    return best


@njit(cache=True)
def gather(fold, table):  # type: ignore[no-untyped-def]
    """Sum a table's rows by class: (keys, symbols) -> (classes, symbols). `fold` ascends and leaves no class out."""
    counts = np.zeros((fold[-1] + 1, table.shape[1]), dtype=np.int64)
    for key in range(fold.size):
        for symbol in range(table.shape[1]):
            counts[fold[key], symbol] += table[key, symbol]
    return counts


@njit(cache=True)
def information(table):  # type: ignore[no-untyped-def]
    """Bits that symbols with these counts cost at least: Σ −h log₂(h / Σh) over the rows of (classes, symbols)."""
    classes, symbols = 0.0, 0.0
    for row in range(table.shape[0]):
        total = 0
        for symbol in range(table.shape[1]):
            count = table[row, symbol]
            if count:
                total += count
                symbols += count * log2(count)
        if total:
            classes += total * log2(total)
    return classes - symbols
