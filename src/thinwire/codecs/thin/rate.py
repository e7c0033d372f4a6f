"""The search for the step that meets a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, fsum, log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes, work
from thinwire.codecs.thin.choice import Source, energy
from thinwire.codecs.thin.tensor import Piece
from thinwire.codecs.thin.trials import NEAR, Point, Trials

MOST_PASSES = 10  # of either round of the search
MOST_PARTS = 8  # shares of the entries that are tried where a size lies in a gap
NEAR_ENOUGH = 0.019  # relative distance to the aim at which a second round is not needed
SAME = 0.001  # relative difference of bytes below which a coarser step saves nothing
GAP = 0.9  # share of a size below which the rest of it is worth a search for a part of the finer levels
LITTLE = 1e-3  # error below which it is not
FLAT = 1.15  # mean square of the entries that are not 0 over their squared mean magnitude: below, they are about ±c
SIGNS = 0.75  # error from which on a part of ±c costs less than all of it: f + H(f) < 1 bit, f = 0.23 of the entries
SURE = 3 * passes.STEPS // 2  # a step finer by that sends each entry of the part, however few they are
LOWEST, HIGHEST = -(2**15), 2**15 - 1


class Found(NamedTuple):
    """The step k, its pieces, the error relative to the energy, how many passes it took, the stream if written."""

    k: int
    pieces: list[Piece]
    nmse: float
    passes: int
    stream: bytes | None = None


def search(sources: Sequence[Source], speed: str, target: str, wanted: float) -> Found:
    """The cheapest way found whose nmse, or the best whose bytes, are at most what is wanted.

    Where the way in which tensors are sent changes, error and bytes jump. If the target lies in such a gap, a second
    round keeps the ways of the finer side and goes on with the step alone. Entries of one magnitude become levels, or
    0, all at one step: an error in that gap is met by the finer side, a size by levels of as many entries as fit.
    """
    whole = fsum(energy(source.x) for source in sources)  # from Python 3.12 on, sum has other last bits
    if whole == 0:
        return Found(0, [Piece() for _ in sources], 0.0, 0)
    n = sum(source.x.size for source in sources)
    largest = max(float(np.abs(source.x).max()) for source in sources)
    finest = max(LOWEST, ceil(passes.STEPS * log2(largest / 2**20)))
    top = min(HIGHEST, ceil(passes.STEPS * (log2(largest) + log2(n) / 2 + 3)))
    rises = target == "nmse"
    worth = work.most(target, wanted, n)
    trials = Trials(sources, speed, rises, wanted if rises else max(1.0, floor(wanted)), whole, worth)
    aim = log2(max(wanted, 1e-12)) / 1.4 + 2 if rises else 0
    one = _one_level(sources, whole)
    start = round(passes.STEPS * (log2(whole / n) / 2 + aim)) if one is None else one
    alone = all(source.known.shared is None for source in sources)
    signs = one is not None and rises and wanted <= SIGNS and alone and trials.met(trials.at(one))
    if not signs:
        _rounds(trials, start, finest, top)
    if not rises and trials.finer:
        _fill(trials, trials.finer[0], n, one)
    best = trials.best
    assert best
    error = passes.error(best.pieces, sources, best.k) / whole
    return Found(best.k, best.pieces, error, trials.count, best.stream)


def _rounds(trials: Trials, start: int, finest: int, top: int) -> None:
    """The first round; where no step of it was fine enough one from the finest on; the second where none is near."""
    _round(trials.at, start, finest, top, trials.rises)
    if trials.rises and trials.finer is None:
        _round(trials.at, finest, finest, top, trials.rises)
    best = trials.best
    assert best
    near = trials.met(best) and best.off >= -log2(1 + NEAR_ENOUGH)
    if not near and trials.finer:
        base, ways = trials.finer
        _round(lambda k: trials.at(k, ways), base.k + passes.STEPS // 8, base.k, top, trials.rises, base)


def _one_level(sources: Sequence[Source], whole: float) -> int | None:
    """The k of a step at which all entries are 0 or ±1 level; None where they have more than one magnitude.

    A quarter of an octave below their mean magnitude: each is surely worth its bits, and level 1 can stand for it.
    """
    total = sum(float(np.abs(source.x).sum(dtype=np.float64)) for source in sources)
    count = sum(int(np.count_nonzero(source.x)) for source in sources)
    return round(passes.STEPS * (log2(total / count) - 0.25)) if whole * count <= FLAT * total**2 else None


def _fill(trials: Trials, finer: Point, n: int, one: int | None) -> None:
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


def _round(at: Callable[[int], Point], k: int, floor: int, top: int, rises: bool, finer: Point | None = None) -> None:
    """Steps tried until one is near: secants in log coordinates inside a bracket, halved where they stay on one side.

    The error rises with the step and bytes fall, both about as powers of it. `finer`: a step known to be too fine.
    """
    slope = (1.4 if rises else -0.9) / passes.STEPS
    low: Point | None = finer  # too fine
    high: Point | None = None  # too coarse
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
