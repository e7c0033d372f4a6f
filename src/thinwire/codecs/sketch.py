"""`count-sketch`: a linear sketch of the whole vector, read by medians."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from thinwire import rng
from thinwire.codecs import trace
from thinwire.codecs.base import Context, checked
from thinwire.codecs.checks import finite
from thinwire.codecs.kernels import njit
from thinwire.errors import ConfigError, DecodeError

MAX_ROWS = 31
LARGEST = np.finfo(np.float32).max


@njit(cache=True)
def _add(x, words, table):  # type: ignore[no-untyped-def]
    columns = np.uint64(table.size)
    for i in range(x.size):
        column = (np.uint64(words[i] >> np.uint32(1)) * columns) >> np.uint64(31)
        table[column] += -np.float64(x[i]) if words[i] & np.uint32(1) else np.float64(x[i])


@njit(cache=True)
def _medians(words, tables, out):  # type: ignore[no-untyped-def]
    rows, columns = tables.shape
    seen = np.empty(rows, dtype=np.float32)
    for i in range(out.size):
        for row in range(rows):
            word = words[row, i]
            cell = tables[row, (np.uint64(word >> np.uint32(1)) * np.uint64(columns)) >> np.uint64(31)]
            cell = -cell if word & np.uint32(1) else cell
            for at in range(row):
                seen[at], cell = min(seen[at], cell), max(seen[at], cell)
            seen[row] = cell
        out[i] = seen[rows // 2]


@dataclass(frozen=True)
class CountSketch:
    """A count sketch: T[r, h_r(i)] += σ_r(i) · x_i in every row r; x̂_i = the median over r of σ_r(i) · T[r, h_r(i)].

    The table is linear in x, the estimate of one row is unbiased with variance at most ‖x‖² / columns. Large entries
    stand out of it; a vector without large entries comes back as noise (NMSE about n / columns with one row).
    rows: odd, so that the median is one of them. width: cells of the whole table over n; every row has
    ⌈width · n / rows⌉ columns. keep: the share of entries, the ⌈keep · n⌉ largest estimates and those that tie with the
    least of them, that are not set to 0.

    Payload: the table, row by row, as float32 (a sum beyond float32 is its largest value): 4 · rows · columns bytes,
    none for an empty layout. One table for the whole vector. h_r(i) and σ_r(i) come from the raw 64-bit words of stream
    `count-sketch-r`, each cut into two 32-bit numbers, low one first; of the i-th number w: σ is − when w is odd, h is
    ⌊(w >> 1) · columns / 2³¹⌋. Takes 4 · rows bytes of memory an entry.
    Errors: ConfigError for NaN, infinity or a field out of range; DecodeError for another length or a cell that is not
    finite.
    Reference: Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", ICALP 2002, §3; for updates:
    Rothchild and others, "FetchSGD: Communication-efficient federated learning with sketching", ICML 2020, Algorithm 1.
    Differs from the paper: hashes are fully random instead of pairwise independent; FetchSGD merges tables and picks
    the largest entries once, after momentum and error feedback, here a table is read as soon as it is received.
    """

    id: ClassVar[str] = "count-sketch"
    dtype: ClassVar[str] = "float32"

    rows: int = 5
    width: float = 0.1
    keep: float = 1.0

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MAX_ROWS and self.rows % 2):
            raise ConfigError(f"{self.id}.rows", self.rows, f"an odd number from 1 to {MAX_ROWS}")
        if not 0 < self.width <= 1:
            raise ConfigError(f"{self.id}.width", self.width, "above 0, at most 1")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"{self.id}.keep", self.keep, "above 0, at most 1")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """The table."""
        x = finite(checked(x, np.float32, context))
        tables = np.zeros((self.rows, self._columns(x.size)), dtype=np.float64)
        for row, table in enumerate(tables):
            _add(x, self._words(context, row), table)
        return np.clip(tables, -LARGEST, LARGEST).astype("<f4").tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """Medians, the smallest of them 0 if `keep` is below 1."""
        n, columns = context.layout.size, self._columns(context.layout.size)
        if len(payload) != 4 * self.rows * columns:
            raise DecodeError(f"{self.id}: {len(payload)} bytes, expected {4 * self.rows * columns}")
        trace.cut("cells", len(payload))
        tables = np.frombuffer(payload, dtype="<f4").astype(np.float32).reshape(self.rows, columns)
        if not np.isfinite(tables).all():
            raise DecodeError(f"{self.id}: a cell is NaN or infinite")
        out = np.empty(n, dtype=np.float32)
        _medians(np.stack([self._words(context, row) for row in range(self.rows)]), tables, out)
        return out if self.keep == 1 or not n else _largest(out, ceil(self.keep * n))

    def _columns(self, n: int) -> int:
        """Cells of one row; none for an empty vector."""
        return ceil(self.width * n / self.rows)

    def _words(self, context: Context, row: int) -> np.ndarray:
        """One 32-bit number an entry: what hashes it in this row.  # (n,) uint32"""
        n = context.layout.size
        words = rng.raw_words(context.seed, f"{self.id}-{row}", (n + 1) // 2)
        return words.astype("<u8").view("<u4")[:n].astype(np.uint32)


def _largest(estimates: np.ndarray, count: int) -> np.ndarray:
    """The estimates from the `count`-th largest magnitude on, ties included; the rest 0."""
    magnitudes = np.abs(estimates)
    least = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    return np.where(magnitudes >= least, estimates, np.float32(0))
