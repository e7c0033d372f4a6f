"""The search for the step that meets a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, floor, log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes
from thinwire.codecs.thin.choice import Source, energy
from thinwire.codecs.thin.tensor import Piece

MOST_PASSES = 10  # of either round of the search
MOST_PARTS = 8  # shares of the entries that are tried where a size lies in a gap
NEAR = 0.006  # a round aims this far below the target and ends early no further than this from its aim
NEAR_ENOUGH = 0.019  # relative distance to the aim at which a second round is not needed
SAME = 0.001  # relative difference of bytes below which a coarser step saves nothing
GAP = 0.9  # share of a size below which the rest of it is worth a search for a part of the finer levels
LITTLE = 1e-3  # error below which it is not
FLAT = 1.15  # mean square of the entries that are not 0 over their squared mean magnitude: below, they are about ±c
SIGNS = 0.75  # error from which on a part of ±c costs less than all of it: f + H(f) < 1 bit, f = 0.23 of the entries
SURE = 3 * passes.STEPS // 2  # a step finer by that sends each entry of the part, however few they are
SHORT = 5000  # bytes of a stream
HEADER = 3  # bytes: effort and length, step
LOWEST, HIGHEST = -(2**15), 2**15 - 1


class Found(NamedTuple):
    """The step k, its pieces, the error relative to the energy, how many passes it took, the stream if written."""

    k: int
    pieces: list[Piece]
    nmse: float
    passes: int
    stream: bytes | None = None


class _Point(NamedTuple):
    """A step that was tried. off: log₂ of what it gave over what is aimed at. error: relative to the energy."""

    k: int
    off: float
    size: float
    error: float
    pieces: list[Piece]
    stream: bytes | None


@dataclass
class _Trials:
    """Steps tried; only the best pass is kept, and the ways of the coarsest that is too fine.

    The best: of those that meet the target the one with the fewest bytes, or, where a size is the target, the one with
    the least error. Where none meets it, the nearest. To send nothing of an update meets no target: under error
    feedback the residual would only grow.
    """

    sources: Sequence[Source]
    speed: str
    rises: bool  # the error is aimed at, else bytes
    wanted: float
    energy: float
    best: _Point | None = None
    finer: tuple[_Point, list[Piece]] | None = None
    count: int = 0

    def at(self, k: int, like: Sequence[Piece] | None = None, kept: int | None = None) -> _Point:
        """What the step of k gives; `kept`: with all but so many of the largest entries taken for 0."""
        sources = self.sources if kept is None else self._largest(kept)
        done = passes.choose(sources, k, self.speed, like)
        self.count += 1
        point = self._measured(k, done, exact=kept is not None)
        if self.best is None or self._rank(point) < self._rank(self.best):
            self.best = point
        if kept is None and like is None:
            self._note_finer(point)
        return point

    def _note_finer(self, point: _Point) -> None:
        """Keep the coarsest point that is too fine."""
        if (point.off > 0) != self.rises and (self.finer is None or point.k > self.finer[0].k):
            self.finer = point, [replace(piece, planes=[]) for piece in point.pieces]

    def met(self, point: _Point) -> bool:
        """Does a point meet the target?"""
        return point.error < 1 and (point.error if self.rises else point.size) <= self.wanted

    def _rank(self, point: _Point) -> tuple[float, ...]:
        """The least of it is the best point."""
        if self.met(point):
            return (0, point.size, point.error) if self.rises else (0, point.error, point.size)
        return (1, point.error, point.size) if self.rises else (1 + (point.error >= 1), point.size, point.error)

    def _measured(self, k: int, done: passes.Pass, exact: bool) -> _Point:
        """Bytes and error of a pass, estimated where that is enough to see on which side of the target it lies."""
        size, error, stream = HEADER + done.bytes, done.error / self.energy, None
        if exact or (self.rises and error <= 1.02 * self.wanted):
            error = passes.error(done.pieces, self.sources, k) / self.energy
        if not self.rises and (done.bytes < SHORT or abs(log2(size / self.wanted)) < 0.03):
            stream = passes.write(done.pieces, self.sources, k, self.speed)  # a short stream's end counts
            size = HEADER + len(stream)
        error = 1.0 if error > 1 - 1e-9 else error
        got = error if self.rises else size
        off = log2(max(got, 1e-30) / self.wanted * (1 + NEAR))
        if error == 1:  # nothing is sent: too coarse, whatever is asked for
            off = max(off, 1.0) if self.rises else min(off, -1.0)
        return _Point(k, off, size, error, done.pieces, stream)

    @cached_property
    def _order(self) -> np.ndarray:
        """Places of all entries, the largest magnitude first, ties in order."""
        return np.argsort(-np.abs(np.concatenate([source.x.ravel() for source in self.sources])), kind="stable")

    def _largest(self, count: int) -> list[Source]:
        """The sources with all but their largest entries set to 0."""
        mask = np.zeros(self._order.size, bool)
        mask[self._order[:count]] = True
        ends = np.cumsum([source.x.size for source in self.sources])
        parts = zip(self.sources, np.split(mask, ends[:-1]), strict=True)
        return [replace(s, x=np.where(part.reshape(s.x.shape), s.x, np.float32(0))) for s, part in parts]


def search(sources: Sequence[Source], speed: str, target: str, wanted: float) -> Found:
    """The cheapest way found whose nmse, or the best whose bytes, are at most what is wanted.

    Where the way in which tensors are sent changes, error and bytes jump. If the target lies in such a gap, a second
    round keeps the ways of the finer side and goes on with the step alone. Entries of one magnitude become levels, or
    0, all at one step: an error in that gap is met by the finer side, a size by levels of as many entries as fit.
    """
    whole = sum(energy(source.x) for source in sources)
    if whole == 0:
        return Found(0, [Piece() for _ in sources], 0.0, 0)
    n = sum(source.x.size for source in sources)
    largest = max(float(np.abs(source.x).max()) for source in sources)
    finest = max(LOWEST, ceil(passes.STEPS * log2(largest / 2**20)))
    top = min(HIGHEST, ceil(passes.STEPS * (log2(largest) + log2(n) / 2 + 3)))
    rises = target == "nmse"
    trials = _Trials(sources, speed, rises, wanted if rises else max(1.0, floor(wanted)), whole)
    aim = log2(max(wanted, 1e-12)) / 1.4 + 2 if rises else 0
    one = _one_level(sources, whole)
    start = round(passes.STEPS * (log2(whole / n) / 2 + aim)) if one is None else one
    if rises and one is not None and wanted <= SIGNS and all(source.known.shared is None for source in sources):
        first = trials.at(one)
        if trials.met(first):
            return Found(first.k, first.pieces, first.error, trials.count)
    _round(trials.at, start, finest, top, rises)
    if rises and trials.finer is None:  # no step tried was fine enough
        _round(trials.at, finest, finest, top, rises)
    assert trials.best
    near = trials.met(trials.best) and trials.best.off >= -log2(1 + NEAR_ENOUGH)
    if not near and trials.finer:
        base, ways = trials.finer
        _round(lambda k: trials.at(k, ways), base.k + passes.STEPS // 8, base.k, top, rises, base)
    if not rises and trials.finer:
        _fill(trials, trials.finer[0], n, one)
    best = trials.best
    error = passes.error(best.pieces, sources, best.k) / whole
    return Found(best.k, best.pieces, error, trials.count, best.stream)


def _one_level(sources: Sequence[Source], whole: float) -> int | None:
    """The k of a step at which all entries are 0 or ±1 level; None where they have more than one magnitude.

    A quarter of an octave below their mean magnitude: each is surely worth its bits, and level 1 can stand for it.
    """
    total = sum(float(np.abs(source.x).sum(dtype=np.float64)) for source in sources)
    count = sum(int(np.count_nonzero(source.x)) for source in sources)
    return round(passes.STEPS * (log2(total / count) - 0.25)) if whole * count <= FLAT * total**2 else None


def _fill(trials: _Trials, finer: _Point, n: int, one: int | None) -> None:
    """As many of the largest entries as fit into a size, where all of them are too many bytes and none is a waste.

    Under error feedback those left out are larger the next time: none waits for ever.
    """
    best = trials.best
    assert best
    if trials.met(best) and (best.error < LITTLE or (one is None and best.size > GAP * trials.wanted)):
        return
    low, high, kept = 0, n, n * trials.wanted / finer.size
    k = max(finer.k - SURE if one is None else one - passes.STEPS // 4, LOWEST)
    for left in range(MOST_PARTS, -1, -1):
        count = min(max(round(kept), low + 1), high - 1)
        if not left and not low:  # nothing fits yet
            count, k = 1, max(k - passes.STEPS, LOWEST)
        if not low < count < high:
            return
        point = trials.at(k, kept=count)
        if point.size <= trials.wanted:
            low = count
            if point.size > 0.97 * trials.wanted:
                return
        else:
            high = count
        guess = count * trials.wanted / point.size
        kept = guess if low < guess < high and left % 2 else (low + high) / 2


def _round(at: Callable[[int], _Point], k: int, floor: int, top: int, rises: bool, finer: _Point | None = None) -> None:
    """Steps tried until one is near: secants in log coordinates inside a bracket, halved where they stay on one side.

    The error rises with the step and bytes fall, both about as powers of it. `finer`: a step known to be too fine.
    """
    slope = (1.4 if rises else -0.9) / passes.STEPS
    low: _Point | None = finer  # too fine
    high: _Point | None = None  # too coarse
    side, k = 0, min(max(k, floor), top)
    for _ in range(MOST_PASSES):
        point = at(k)
        off = point.off
        if abs(off) <= log2(1 + NEAR) + 1e-9:
            return
        coarse = (off > 0) == rises
        before, side = (high, max(side, 0) + 1) if coarse else (low, min(side, 0) - 1)
        if before and not coarse and rises and abs(before.size - point.size) <= SAME * point.size:
            return  # fine enough, and no cheaper for being coarser
        low, high = (low, point) if coarse else (point, high)
        if low and high:
            if high.k - low.k <= 1:
                return
            share = low.off / (low.off - high.off) if abs(side) < 3 else 0.5
            k = low.k + round((high.k - low.k) * min(max(share, 0.03), 0.97))
            k = min(max(k, low.k + 1), high.k - 1)
        else:
            if before and before.k != k and (off - before.off) / (k - before.k) * slope > 0:
                slope = (off - before.off) / (k - before.k)
            stride = round(min(max(-1.1 * off / slope, -12 * passes.STEPS), 12 * passes.STEPS))
            following = min(max(k + (stride or (-1 if coarse else 1)), floor), top)
            if following == k:
                return
            k = following
