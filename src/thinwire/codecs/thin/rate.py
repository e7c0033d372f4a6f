"""The search for the step that meets a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, fsum, log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes
from thinwire.codecs.thin.choice import Source, energy
from thinwire.codecs.thin.tensor import Piece

MOST_PASSES = 10  # of either round of the search
NEAR = 0.006  # relative distance to the target at which a round ends early
NEAR_ENOUGH = 0.019  # and at which a second round is not needed
SHORT = 5000  # bytes of a stream
HEADER = 3  # bytes: effort and length, step
LOWEST, HIGHEST = -(2**15), 2**15 - 1


class Found(NamedTuple):
    """The step k, its pieces, the error relative to the energy, and how many passes it took."""

    k: int
    pieces: list[Piece]
    nmse: float
    passes: int


class _Point(NamedTuple):
    """A step that was tried: log₂ of what it gave over what is wanted, and the pass."""

    k: int
    off: float
    done: passes.Pass


@dataclass
class _Trials:
    """Steps tried; only the nearest pass is kept, and the ways of the coarsest that is too fine."""

    sources: Sequence[Source]
    speed: str
    rises: bool  # the error is aimed at, else bytes
    wanted: float
    energy: float
    best: _Point | None = None
    finer: tuple[int, list[Piece]] | None = None
    count: int = 0

    def at(self, k: int, like: Sequence[Piece] | None) -> float:
        """log₂ of what the step of k gives over what is wanted."""
        done = passes.choose(self.sources, k, self.speed, like)
        got = done.error / self.energy
        if not self.rises:  # short streams are cheap to write, and their ends count
            exact = done.bytes < SHORT
            got = HEADER + (len(passes.write(done.pieces, self.sources, k, self.speed)) if exact else done.bytes)
        point = _Point(k, log2(max(got, 1e-30) / self.wanted), done)
        self.count += 1
        if self.best is None or abs(point.off) < abs(self.best.off):
            self.best = point
        if (point.off > 0) != self.rises and like is None and (self.finer is None or k > self.finer[0]):
            self.finer = k, [replace(piece, planes=[]) for piece in done.pieces]
        return point.off


def search(sources: Sequence[Source], speed: str, target: str, wanted: float) -> Found:
    """The step whose nmse, or whose bytes, come nearest to what is wanted.

    Where the way in which tensors are sent changes, error and bytes jump. If the target lies in such a gap, a second
    round keeps the ways of the finer side and goes on with the step alone.
    """
    whole = fsum(energy(source.x) for source in sources)  # from Python 3.12 on, sum has other last bits
    if whole == 0:
        return Found(0, [Piece() for _ in sources], 0.0, 0)
    n = sum(source.x.size for source in sources)
    largest = max(float(np.abs(source.x).max()) for source in sources)
    floor = max(LOWEST, ceil(passes.STEPS * log2(largest / 2**20)))
    top = min(HIGHEST, ceil(passes.STEPS * (log2(largest) + log2(n) / 2 + 3)))
    trials = _Trials(sources, speed, target == "nmse", wanted, whole)
    aim = log2(max(wanted, 1e-12)) / 1.4 + 2 if trials.rises else 0
    start = round(passes.STEPS * (log2(whole / n) / 2 + aim))
    _round(lambda k: trials.at(k, None), start, floor, top, trials.rises)
    assert trials.best
    if abs(trials.best.off) > log2(1 + NEAR_ENOUGH) and trials.finer:
        base, ways = trials.finer
        _round(lambda k: trials.at(k, ways), base + passes.STEPS // 8, base, top, trials.rises)
    best = trials.best
    return Found(best.k, best.done.pieces, best.done.error / whole, trials.count)


def _round(off_at: Callable[[int], float], k: int, floor: int, top: int, rises: bool) -> None:
    """Steps tried until one is near: secants in log coordinates inside a bracket, halved where they stay on one side.

    The error rises with the step and bytes fall, both about as powers of it.
    """
    slope = (1.4 if rises else -0.9) / passes.STEPS
    low: tuple[int, float] | None = None  # too fine
    high: tuple[int, float] | None = None  # too coarse
    side, k, offs = 0, min(max(k, floor), top), list[float]()
    while len(offs) < MOST_PASSES:
        off = off_at(k)
        offs.append(off)
        if abs(off) < log2(1 + NEAR) or offs[-3:] == [off] * 3:
            return
        coarse = (off > 0) == rises
        before, side = (high, max(side, 0) + 1) if coarse else (low, min(side, 0) - 1)
        low, high = (low, (k, off)) if coarse else ((k, off), high)
        if low and high:
            if high[0] - low[0] <= 1:
                return
            share = low[1] / (low[1] - high[1]) if abs(side) < 3 else 0.5
            k = low[0] + round((high[0] - low[0]) * min(max(share, 0.03), 0.97))
            k = min(max(k, low[0] + 1), high[0] - 1)
        else:
            if before and before[0] != k and (off - before[1]) / (k - before[0]) * slope > 0:
                slope = (off - before[1]) / (k - before[0])
            stride = round(min(max(-1.1 * off / slope, -12 * passes.STEPS), 12 * passes.STEPS))
            following = min(max(k + (stride or (-1 if coarse else 1)), floor), top)
            if following == k:
                return
            k = following
