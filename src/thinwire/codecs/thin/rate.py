"""The search for the step that meets a target."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes
from thinwire.codecs.thin.tensor import Piece, Source, energy

MOST_PASSES = 12
NEAR = 0.006  # relative distance to the target at which the search ends early
OVERHEAD = 4  # bytes: the header, and what the end of the stream takes
LOWEST, HIGHEST = -(2**15), 2**15 - 1


class Found(NamedTuple):
    """The step k, its pieces, the error relative to the energy, and how many passes it took."""

    k: int
    pieces: list[Piece]
    nmse: float
    passes: int


def search(sources: Sequence[Source], speed: str, target: str, wanted: float) -> Found:
    """The step whose nmse, or whose bytes, come nearest to what is wanted.

    The error rises with the step and bytes fall, both about as powers of it: secants in log coordinates inside a
    bracket, halved where they stay on one side.
    """
    whole = sum(energy(source.x) for source in sources)
    largest = max((float(np.abs(source.x).max()) for source in sources), default=0.0)
    if whole == 0:
        return Found(0, [Piece() for _ in sources], 0.0, 0)
    n = sum(source.x.size for source in sources)
    floor = max(LOWEST, ceil(passes.STEPS * log2(largest / 2**20)))
    top = min(HIGHEST, ceil(passes.STEPS * (log2(largest) + log2(n) / 2 + 3)))
    rises = target == "nmse"
    slope = (1.4 if rises else -0.9) / passes.STEPS
    k = round(passes.STEPS * (log2(whole / n) / 2 + (log2(max(wanted, 1e-12)) / 1.4 + 2 if rises else 0)))
    low: tuple[int, float] | None = None  # too fine
    high: tuple[int, float] | None = None  # too coarse
    best: tuple[float, int, passes.Pass] | None = None
    count, side = 0, 0
    k = min(max(k, floor), top)
    while count < MOST_PASSES:
        done = passes.choose(sources, k, speed)
        count += 1
        got = done.error / whole if rises else done.bytes + OVERHEAD
        off = log2(max(got, 1e-30) / wanted)
        if best is None or abs(off) < best[0]:
            best = (abs(off), k, done)
        if abs(off) < NEAR:
            break
        if (off > 0) == rises:
            high, before = (k, off), high
            side = side + 1 if side > 0 else 1
        else:
            low, before = (k, off), low
            side = side - 1 if side < 0 else -1
        if low and high:
            if high[0] - low[0] <= 1:
                break
            share = low[1] / (low[1] - high[1]) if abs(side) < 3 else 0.5
            k = low[0] + round((high[0] - low[0]) * min(max(share, 0.03), 0.97))
            k = min(max(k, low[0] + 1), high[0] - 1)
        else:
            if before and before[0] != k and (off - before[1]) / (k - before[0]) * slope > 0:
                slope = (off - before[1]) / (k - before[0])
            stride = -off / slope * 1.1
            following = min(max(k + round(min(max(stride, -12 * 128), 12 * 128)) or (1 if stride > 0 else -1), floor), top)
            if following == k:
                break
            k = following
    assert best is not None
    return Found(best[1], best[2].pieces, best[2].error / whole, count)
