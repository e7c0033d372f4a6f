"""One tensor as a matrix: what is known of it beforehand, how a piece of it is written and read, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.codecs.thin import lowrank
from thinwire.codecs.thin.model import Model
from thinwire.codecs.thin.stream import NOWHERE, Plane, Stream
from thinwire.errors import DecodeError
from thinwire.layout import Entry

ZERO, LEVELS, PRODUCTS, BOTH = range(4)  # nothing; levels; outer products; these, then levels of what they leave
COEFFICIENT = 64  # of the shared tensor, in units of 1 / 64
OFFSETS = 64  # of a level's value towards 0, in units of step / 64
LARGEST = np.finfo(np.float32).max
Offsets = tuple[int, int, int]
USUAL: Offsets = (4, 2, 1)  # offsets of sizes 1, 2 and above where none are sent


@dataclass(frozen=True)
class Form:
    """A tensor as a matrix (rows, cols), the first axis against the rest; entries of a kernel and of its row."""

    rows: int
    cols: int
    kernel_row: int = NOWHERE
    kernel: int = NOWHERE

    @classmethod
    def of(cls, entry: Entry) -> Form:
        """A vector is one row."""
        rows = entry.shape[0] if len(entry.shape) >= 2 else 1
        width, area = (entry.shape[-1], int(np.prod(entry.shape[2:]))) if len(entry.shape) >= 3 else (1, 1)
        return cls(rows, entry.size // rows, width if 2 < width < area else NOWHERE, area if area > 1 else NOWHERE)

    def products(self, most: int) -> int:
        """Outer products that may pay, of so many at most: half as many as there are rows or columns."""
        return min(most, min(self.rows, self.cols) // 2)


@dataclass(frozen=True)
class Piece:
    """A tensor's choices. planes: levels and offsets, of left factors, right ones, entries, as the mode has them."""

    mode: int = ZERO
    coefficient: int = 0
    rank: int = 0
    planes: list[tuple[np.ndarray, Offsets]] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """What both ends know of a tensor: its form, and the shared array's part of it (rows, cols) float32, or None."""

    form: Form
    shared: np.ndarray | None

    @cached_property
    def entries(self) -> Plane:
        """For levels of the tensor itself."""
        form = self.form
        if self.shared is None:
            return _blank(form.rows, form.cols, form)
        return _plane(self.shared, self._below[0], self._below[1], form.cols, form)

    def left(self, rank: int) -> Plane:
        """For the left factors (rank, rows): means of the shared tensor's rows."""
        if self.shared is None:
            return _blank(rank, self.form.rows)
        classes = np.tile(np.maximum(15 - self._below[0], 0).astype(np.uint8), rank)
        return Plane(self.form.rows, classes, np.zeros_like(classes), np.ones_like(classes))

    def right(self, units: np.ndarray) -> Plane:
        """For the right factors (rank, cols), the left ones decoded: the shared tensor is projected on them."""
        rank, form = units.shape[0], self.form
        if self.shared is None:
            return _blank(rank, form.cols, form)
        seen = _unit(lowrank.project(units, self.shared))
        return _plane(seen, np.zeros(rank, np.int64), self._below[1], form.cols, form)

    @cached_property
    def _below(self) -> tuple[np.ndarray, np.ndarray]:
        """Half octaves that the mean magnitude of each row, and of each column, lies below the largest."""
        rows, columns = _means(self.shared)
        return _half_octaves(_unit(rows)), _half_octaves(_unit(columns))


def _blank(rows: int, cols: int, form: Form | None = None) -> Plane:
    nothing = np.zeros(rows * cols, np.uint8)
    back = (form.kernel_row, form.kernel) if form else (NOWHERE, NOWHERE)
    return Plane(cols, nothing, nothing, np.ones(rows * cols, np.uint8), *back)


@njit(cache=True)
def _means(matrix):  # type: ignore[no-untyped-def]
    """Mean magnitude of each row and of each column, summed in order, in float64."""
    m, n = matrix.shape
    rows, columns = np.zeros(m), np.zeros(n)
    for i in range(m):
        for j in range(n):
            x = abs(np.float64(matrix[i, j]))
            rows[i] += x
            columns[j] += x
    return rows / n, columns / m


def _unit(values: np.ndarray) -> np.ndarray:
    """float64 numbers over the largest magnitude among them, as float32."""
    return (values / (np.abs(values).max(initial=0.0) or 1.0)).astype(np.float32)


def _half_octaves(values: np.ndarray) -> np.ndarray:
    """How far float32 magnitudes lie below the largest, by their bits; 15 and more count as 15, and so does 0."""
    bits = (values.view(np.uint32) & np.uint32(0x7FFFFFFF)).astype(np.int64) >> 22
    return np.where(values == 0, 15, np.minimum(bits.max(initial=0) - bits, 14))


def _plane(shared: np.ndarray, rows: np.ndarray, columns: np.ndarray, cols: int, form: Form) -> Plane:
    """What a shared matrix (m, n) float32 says of each entry; rows, columns: half octaves below the largest."""
    classes, lines, signs = (np.empty(shared.size, np.uint8) for _ in range(3))
    _look(np.ascontiguousarray(shared).view(np.uint32), rows, columns, classes, lines, signs)
    return Plane(cols, classes, lines, signs, form.kernel_row, form.kernel)


@njit(cache=True)
def _look(bits, rows, columns, classes, lines, signs):  # type: ignore[no-untyped-def]
    """Classes: half octaves below the largest magnitude, 15 at the top, down to 1; 0 for 0. Lines: of row · column."""
    m, n = bits.shape
    magnitude = np.uint32(0x7FFFFFFF)
    top = np.uint32(0)
    for i in range(m):
        for j in range(n):
            top = max(top, bits[i, j] & magnitude)
    top >>= np.uint32(22)
    o = 0
    for i in range(m):
        for j in range(n):
            size = bits[i, j] & magnitude
            below = np.int64(top) - np.int64(size >> np.uint32(22))
            classes[o] = max(15 - below, 1) if size else 0
            lines[o] = max(15 - rows[i] - columns[j], 0)
            signs[o] = (0 if bits[i, j] >> np.uint32(31) else 2) if size else 1
            o += 1


@njit(cache=True, forceinline=True)
def magnitude(size, first, second, more, unit):  # type: ignore[no-untyped-def]
    """(size − offset / 64) step of a size above 0, unit = step / 64; the offset by size 1, 2, above."""
    return np.float64(64 * size - (first if size == 1 else (second if size == 2 else more))) * unit


@njit(cache=True)
def values_of(levels, first, second, more, step):  # type: ignore[no-untyped-def]
    """What levels stand for: ±(|level| − offset / 64) step, float64; the offset by size 1, 2, above."""
    out = np.empty(levels.size)
    unit = step / 64
    for i in range(levels.size):
        size = abs(np.int64(levels[i]))
        value = 0.0
        if size > 0:
            value = magnitude(size, first, second, more, unit)
        out[i] = -value if levels[i] < 0 else value
    return out


@njit(cache=True)
def add_values(levels, first, second, more, step, out):  # type: ignore[no-untyped-def]
    """out (n,) float32 += what levels stand for, each rounded to float32 first."""
    unit = step / 64
    for i in range(levels.size):
        size = abs(np.int64(levels[i]))
        if size > 0:
            value = np.float32(magnitude(size, first, second, more, unit))
            out[i] += -value if levels[i] < 0 else value


def code(stream: Stream, piece: Piece, known: Known, step: float, sets: int, most: int, model: Model) -> Piece:
    """Write a piece, or read the one that was written; most: outer products of any tensor."""
    mode = stream.bits(piece.mode, 2)
    coefficient = 0
    if known.shared is not None and stream.bits(int(piece.coefficient != 0), 1):
        coefficient = stream.bits(piece.coefficient + 128, 8) - 128
    given, planes = iter(piece.planes), []

    def plane(plane: Plane) -> np.ndarray:
        levels, offsets = next(given, (np.empty(plane.size, np.int32), USUAL))
        if stream.bits(int(offsets != USUAL), 1):
            first, second, more = (stream.bits(offset + 16, 6) - 16 for offset in offsets)
            offsets = first, second, more
        planes.append((stream.plane(levels, plane, sets, model), offsets))
        return values_of(planes[-1][0], *offsets, step)

    rank = 0
    if mode in (PRODUCTS, BOTH):
        rank = stream.bits(piece.rank - 1, 6) + 1
        if rank > known.form.products(most):
            raise DecodeError(f"thin: {rank} products of a tensor that takes {known.form.products(most)} at most")
        plane(known.right(lowrank.unit_rows(plane(known.left(rank)).reshape(rank, -1))))
    if mode in (LEVELS, BOTH):
        plane(known.entries)
    return Piece(mode, coefficient, rank, planes)


def decoded(piece: Piece, known: Known, step: float) -> np.ndarray:
    """The matrix (rows, cols) float32 that a piece stands for."""
    form = known.form
    out = np.zeros((form.rows, form.cols), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if piece.coefficient and known.shared is not None:
            out += np.float32(piece.coefficient / COEFFICIENT) * known.shared
        if piece.mode in (PRODUCTS, BOTH):
            left, right = (values_of(levels, *offsets, step) for levels, offsets in piece.planes[:2])
            units = lowrank.unit_rows(left.reshape(piece.rank, -1))
            lowrank.add_products(units, right.reshape(piece.rank, -1), out)
        if piece.mode in (LEVELS, BOTH):
            levels, offsets = piece.planes[-1]
            add_values(levels, *offsets, step, out.reshape(-1))
        return np.clip(out, -LARGEST, LARGEST, out=out)
