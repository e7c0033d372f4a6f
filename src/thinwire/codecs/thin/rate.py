"""The search for the step that meets a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes
from thinwire.codecs.thin.tensor import Piece, Source, energy

MOST_PASSES = 10  # of either round of the search
NEAR, NEAR_ENOUGH = (
    0.006,
    0.019,
)  # relative distance to the target at which a round ends early, and after which one is enough
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


def search(sources: Sequence[Source], speed: str, target: str, wanted: float) -> Found:
    """The step whose nmse, or whose bytes, come nearest to what is wanted.

    Where the way in which tensors are sent changes, error and bytes jump. If the target lies in such a gap, a second
    round keeps the ways of the finer side and goes on with the step alone.
    """
    whole = sum(energy(source.x) for source in sources)
    if whole == 0:
        return Found(0, [Piece() for _ in sources], 0.0, 0)
    n = sum(source.x.size for source in sources)
    largest = max(float(np.abs(source.x).max()) for source in sources)
    floor = max(LOWEST, ceil(passes.STEPS * log2(largest / 2**20)))
    top = min(HIGHEST, ceil(passes.STEPS * (log2(largest) + log2(n) / 2 + 3)))
    rises = target == "nmse"

    def tried(k: int, like: Sequence[Piece] | None) -> _Point:
        done = passes.choose(sources, k, speed, like)
        got = done.error / whole
        if not rises:  # short streams are cheap to write, and their ends count
            exact = done.bytes < SHORT
            got = HEADER + (len(passes.write(done.pieces, sources, k, speed)) if exact else done.bytes)
        return _Point(k, log2(max(got, 1e-30) / wanted), done)

    start = passes.STEPS * (log2(whole / n) / 2 + (log2(max(wanted, 1e-12)) / 1.4 + 2 if rises else 0))
    points = _round(lambda k: tried(k, None), round(start), floor, top, rises)
    best = min(points, key=lambda point: abs(point.off))
    finer = [point for point in points if (point.off > 0) != rises]
    if abs(best.off) > log2(1 + NEAR_ENOUGH) and finer:
        base = max(finer, key=lambda point: point.k)
        points += _round(lambda k: tried(k, base.done.pieces), base.k + passes.STEPS // 8, base.k, top, rises)
        best = min(points, key=lambda point: abs(point.off))
    return Found(best.k, best.done.pieces, best.done.error / whole, len(points))


def _round(tried: Callable[[int], _Point], k: int, floor: int, top: int, rises: bool) -> list[_Point]:
    """Steps tried until one is near: secants in log coordinates inside a bracket, halved where they stay on one side.

    The error rises with the step and bytes fall, both about as powers of it.
    """
    slope = (1.4 if rises else -0.9) / passes.STEPS
    points: list[_Point] = []
    low: _Point | None = None  # too fine
    high: _Point | None = None  # too coarse
    side, k = 0, min(max(k, floor), top)
    while len(points) < MOST_PASSES:
        point = tried(k)
        points.append(point)
        if abs(point.off) < log2(1 + NEAR) or [point.off] * 3 == [p.off for p in points[-3:]]:
            break
        coarse = (point.off > 0) == rises
        before, side = (high, max(side, 0) + 1) if coarse else (low, min(side, 0) - 1)
        low, high = (low, point) if coarse else (point, high)
        if low and high:
            if high.k - low.k <= 1:
                break
            share = low.off / (low.off - high.off) if abs(side) < 3 else 0.5
            k = low.k + round((high.k - low.k) * min(max(share, 0.03), 0.97))
            k = min(max(k, low.k + 1), high.k - 1)
        else:
            if before and before.k != k and (point.off - before.off) / (k - before.k) * slope > 0:
                slope = (point.off - before.off) / (k - before.k)
            stride = round(min(max(-1.1 * point.off / slope, -12 * passes.STEPS), 12 * passes.STEPS))
            following = min(max(k + (stride or (-1 if coarse else 1)), floor), top)
            if following == k:
                break
            k = following
    return points
