"""An encoder's choices for one tensor: what is taken off first, how many outer products, which levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.codecs.thin import lowrank
from thinwire.codecs.thin.model import Model
from thinwire.codecs.thin.stream import Plane, chosen
from thinwire.codecs.thin.tensor import (
    BOTH,
    COEFFICIENT,
    LEVELS,
    OFFSETS,
    PRODUCTS,
    USUAL,
    ZERO,
    Form,
    Known,
    Offsets,
    Piece,
    decoded,
    magnitude,
    values_of,
)


@njit(cache=True)
def _moments(x, levels, step):  # type: ignore[no-untyped-def]
    """Of sizes 1, 2 and above: how many, and the sum of |level| − |x| / step over them."""
    count, total = np.zeros(3, np.int64), np.zeros(3)
    for i in range(levels.size):
        size = abs(np.int64(levels[i]))
        if size > 0:
            which = 2 if size > 2 else size - 1
            count[which] += 1
            total[which] += size - abs(x[i]) / step
    return count, total


def _offsets(x: np.ndarray, levels: np.ndarray, step: float, price: float) -> Offsets:
    """The centroids of the levels' cells as offsets, where they are worth their 18 bits; else the usual ones."""
    count, total = _moments(x, levels, step)
    ideal = total / np.maximum(count, 1)
    best = tuple(int(k) for k in np.clip(np.round(ideal * OFFSETS), -16, 47))
    gain = float((count * ((np.array(USUAL) / OFFSETS - ideal) ** 2 - (np.array(best) / OFFSETS - ideal) ** 2)).sum())
    return best if gain > 18 * price else USUAL  # type: ignore[return-value]


@dataclass
class Rest:
    """What is left to send of a tensor once `coefficient` / 64 of the shared one is taken off."""

    x: np.ndarray
    coefficient: int
    most: int  # outer products

    @cached_property
    def energy(self) -> float:
        """‖x‖²."""
        return energy(self.x)

    @cached_property
    def scale(self) -> float:
        """The largest magnitude."""
        return float(np.abs(self.x).max())

    @cached_property
    def directions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Leading directions u (rows, p), b (cols, p) of x / scale."""
        p = Form(*self.x.shape).products(self.most)
        return lowrank.leading(self.x / np.float32(self.scale), p) if p and self.scale else None

    def guesses(self, step: float, price: float) -> Guess:
        """What the ways to send it will about cost at this step."""
        levels = float(guess(self.x, step, price))
        if not self.directions:
            return Guess(0, self.energy, 0, self.energy, levels)
        rank, cost, first, both = _best_ranks(*self.directions, self.scale / step, self.energy / step**2, price)
        return Guess(rank, cost * step * step, first, both * step * step, levels)


class Guess(NamedTuple):
    """The best number of products, with its cost; that of products before levels, with its cost; the cost of levels."""

    rank: int
    products: float
    rank_of_both: int
    both: float
    levels: float


@dataclass
class Source:
    """A tensor to send: the matrix, and what is known."""

    x: np.ndarray
    known: Known
    most: int

    @cached_property
    def rests(self) -> list[Rest]:
        """The tensor itself and, where that removes a tenth of its energy, what the shared one does not explain."""
        rests, shared = [Rest(self.x, 0, self.most)], self.known.shared
        if shared is None:
            return rests
        dot, other, own = _products(self.x, shared)
        if dot * dot > 0.1 * other * own > 0:
            coefficient = int(np.clip(round(COEFFICIENT * dot / other), -128, 127))
            if coefficient:
                with np.errstate(over="ignore", invalid="ignore"):
                    rest = self.x - np.float32(coefficient / COEFFICIENT) * shared
                if np.isfinite(rest).all():
                    rests.append(Rest(rest, coefficient, self.most))
        return rests


@njit(cache=True, forceinline=True)
def _about_log2(x):  # type: ignore[no-untyped-def]
    """log₂ x of a normal x > 0 by its bits, linear between powers of two: at most 0.06 off."""
    return np.float64(np.float64(x).view(np.int64)) / (1 << 52) - 1022.957


@njit(cache=True)
def _best_ranks(left, right, scale, energy, price):  # type: ignore[no-untyped-def]
    """Of u (m, p), b (n, p), b's scale and the energy in steps: the ranks with the least cost, alone and before levels.

    A factor's entry of a steps is taken for 1.5 log₂(1 + a) bits; what products leave costs its energy, or, as levels
    of Gaussian numbers of variance v in steps², θ + price/2 · log₂(v/θ) an entry where v is above θ = price / (2 ln 2).
    """
    n = left.shape[0] * right.shape[0]
    theta = price / (2 * np.log(2.0))
    spent, rank, rank_of_both = 0.0, 0, 0
    cost = both = energy
    for k in range(right.shape[1] + 1):
        levels = energy if energy <= n * theta else n * (theta + price / 2 * np.log2(energy / (n * theta)))
        if spent + energy < cost:
            cost, rank = spent + energy, k
        if spent + levels < both:
            both, rank_of_both = spent + levels, k
        if k == right.shape[1]:
            break
        held = 0.0
        for j in range(right.shape[0]):
            held += (np.float64(right[j, k]) * scale) ** 2
        if held == 0:
            break
        size, bits = np.sqrt(held), 16.0
        for i in range(left.shape[0]):
            bits += 1.5 * _about_log2(1 + abs(left[i, k]) * size)
        for j in range(right.shape[0]):
            bits += 1.5 * _about_log2(1 + abs(right[j, k]) * scale)
        spent += price * bits
        energy = max(energy - held, 0.0)
    return rank, cost, rank_of_both, both


@njit(cache=True)
def _products(x, y):  # type: ignore[no-untyped-def]
    dot, energy, own = 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            a, b = np.float64(x[i, j]), np.float64(y[i, j])
            dot += a * b
            energy += b * b
            own += a * a
    return dot, energy, own


@njit(cache=True)
def energy(x):  # type: ignore[no-untyped-def]
    """‖x‖² of a matrix, in float64."""
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += np.float64(x[i, j]) * np.float64(x[i, j])
    return total


@njit(cache=True)
def distance(x, y):  # type: ignore[no-untyped-def]
    """‖x − y‖² of two matrices, in float64."""
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            off = np.float64(x[i, j]) - np.float64(y[i, j])
            total += off * off
    return total


@dataclass(frozen=True)
class Candidate:
    """A piece with what it costs, and the model as it leaves it."""

    piece: Piece
    bits: float
    error: float
    model: Model

    def cost(self, price: float, step: float) -> float:
        """Error plus price · step² · bits."""
        return self.error + price * step * step * self.bits


@dataclass(frozen=True)
class Effort:
    """What an encoder spends: contexts of the bit "not zero", most outer products of a tensor, whether all is tried.

    doubt: where not, levels are tried next to products up to this multiple of what these are guessed to cost.
    """

    contexts: int
    rank: int
    doubt: float = 0
    thorough: bool = False


def best_piece(source: Source, step: float, price: float, model: Model, effort: Effort) -> Candidate:
    """The cheapest way to send a tensor at this step: nothing, levels, outer products, or both.

    Whether something is taken off first, and what is tried at all, is guessed; a thorough effort tries everything.
    """
    guessed = [(rest, rest.guesses(step, price)) for rest in source.rests]
    if not effort.thorough:
        guessed = [min(guessed, key=lambda pair: min(pair[1].products, pair[1].both, pair[1].levels))]
    candidates = []
    for rest, about in guessed:
        trial = _Trial(rest, source.known, step, price, effort.contexts, model)
        candidates.append(trial.nothing())
        ranks = {about.rank} if about.products < 2 * about.levels else set()
        if about.both < 0.9 * min(about.products, about.levels):
            ranks = {about.rank_of_both}
        for rank in {about.rank, about.rank_of_both} - {0} if effort.thorough else ranks - {0}:
            products, left = trial.products(rank)
            candidates.append(products)
            if np.isfinite(products.error) and (effort.thorough or guess(left, step, price) < 0.97 * products.error):
                candidates.append(trial.both(products, left))
        if effort.thorough or _levels_may_win(about, rest, effort.doubt):
            candidates.append(trial.levels())
    return min(candidates, key=lambda c: c.cost(price, step))


def _levels_may_win(about: Guess, rest: Rest, doubt: float) -> bool:
    """Levels alone are worth a trial: they would not all be 0, and products do not seem that much better.

    In a small tensor what the model learns weighs more than the guess knows.
    """
    return about.levels < 0.98 * rest.energy and (
        rest.x.size < 4096 or about.levels < doubt * min(about.products, about.both)
    )


def piece_like(like: Piece, source: Source, step: float, price: float, model: Model, effort: Effort) -> Candidate:
    """The way to send a tensor that another piece of it took, at this step."""
    rest = next(rest for rest in source.rests if rest.coefficient == like.coefficient)
    trial = _Trial(rest, source.known, step, price, effort.contexts, model)
    if like.mode == ZERO:
        return trial.nothing()
    if like.mode == LEVELS:
        return trial.levels()
    products, left = trial.products(like.rank)
    return products if like.mode == PRODUCTS else trial.both(products, left)


@dataclass(frozen=True)
class _Trial:
    """The ways to send one rest, each tried from the model as it is."""

    rest: Rest
    known: Known
    step: float
    price: float
    contexts: int
    model: Model

    @property
    def head(self) -> float:
        """Bits of mode and coefficient."""
        return 2.0 + (self.known.shared is not None) + (8.0 if self.rest.coefficient else 0.0)

    def nothing(self) -> Candidate:
        """The shared tensor's share alone."""
        return Candidate(Piece(ZERO, self.rest.coefficient), self.head, self.rest.energy, self.model)

    def levels(self) -> Candidate:
        """Levels of the rest."""
        model = self.model.copy()
        plane, bits, error = self._plane(self.rest.x, self.known.entries, model)
        return Candidate(Piece(LEVELS, self.rest.coefficient, 0, [plane]), self.head + bits, error, model)

    def products(self, rank: int) -> tuple[Candidate, np.ndarray]:
        """Outer products, and the matrix that they leave."""
        assert self.rest.directions
        left, right = self.rest.directions
        scales = np.sqrt((right[:, :rank].astype(np.float64) ** 2).sum(0)) * self.rest.scale
        model = self.model.copy()
        first, bits, _ = self._plane((left[:, :rank] * scales).T, self.known.left(rank), model)
        units = lowrank.unit_rows(values_of(first[0], *first[1], self.step).reshape(rank, -1))
        second, more, _ = self._plane(lowrank.fitted(units, self.rest.x), self.known.right(units), model)
        piece = Piece(PRODUCTS, self.rest.coefficient, rank, [first, second])
        left_over = decoded(Piece(PRODUCTS, 0, rank, piece.planes), self.known, self.step)
        with np.errstate(over="ignore"):  # opposite ends of float32: an infinite error, which no one chooses
            np.subtract(self.rest.x, left_over, out=left_over)
        return Candidate(piece, self.head + 6 + bits + more, energy(left_over), model), left_over

    def both(self, products: Candidate, left: np.ndarray) -> Candidate:
        """Levels of what the products leave, after them."""
        model = products.model.copy()
        plane, bits, error = self._plane(left, self.known.entries, model)
        piece = Piece(BOTH, self.rest.coefficient, products.piece.rank, [*products.piece.planes, plane])
        return Candidate(piece, products.bits + bits, error, model)

    def _plane(self, x: np.ndarray, plane: Plane, model: Model) -> tuple[tuple[np.ndarray, Offsets], float, float]:
        """Levels and offsets of a matrix, their bits, and the squared error that they leave."""
        flat = np.ascontiguousarray(x).reshape(-1)
        levels, bits = chosen(flat, plane, self.step, self.price, self.contexts, model)
        offsets = _offsets(flat, levels, self.step, self.price)
        bits += 1 + (18 if offsets != USUAL else 0)
        return (levels, offsets), bits, float(_error(flat, levels, *offsets, self.step))


@njit(cache=True)
def _error(x, levels, first, second, more, step):  # type: ignore[no-untyped-def]
    """‖x − what levels stand for‖², in float64."""
    unit, total = step / 64, 0.0
    for i in range(levels.size):
        size = abs(np.int64(levels[i]))
        value = 0.0
        if size > 0:
            value = magnitude(size, first, second, more, unit)
        off = abs(np.float64(x[i])) - value
        total += off * off
    return total


@njit(cache=True)
def guess(x, step, price):  # type: ignore[no-untyped-def]
    """About what levels would cost: zeros by the entropy of how many there are, the others by their size."""
    count, small, sizes = 0, 0.0, 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            size = abs(np.float64(x[i, j])) / step
            if size > 0.65:
                count += 1
                sizes += _about_log2(size)
            else:
                small += size * size
    share, entropy = count / x.size, 0.0
    if 0 < count < x.size:
        entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    bits = 0.75 * x.size * entropy + 1.5 * count + 1.5 * sizes
    return (small + count / 14 + price * bits) * step * step
