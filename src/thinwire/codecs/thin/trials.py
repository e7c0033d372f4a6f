"""Steps tried for a target: what each gives, and which of them is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log2
from typing import NamedTuple

import numpy as np

from thinwire.codecs.thin import passes, work
from thinwire.codecs.thin.choice import Source
from thinwire.codecs.thin.tensor import Piece

NEAR = 0.006  # a search aims this far below the target, and ends early no further than this from its aim
SHORT = 5000  # bytes of a stream
HEADER = 3  # bytes: effort and length, step


class Point(NamedTuple):
    """A step that was tried. off: log₂ of what it gave over what is aimed at. error: relative to the energy."""

    k: int
    off: float
    size: float
    error: float
    pieces: list[Piece]
    stream: bytes | None
    refused: bool = False  # by the reader, for the work


@dataclass
class Trials:
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
    work: int  # bits of levels, one by one, that a reader takes
    best: Point | None = None
    finer: tuple[Point, list[Piece]] | None = None
    count: int = 0

    def at(self, k: int, like: Sequence[Piece] | None = None, kept: int | None = None) -> Point:
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

    def _note_finer(self, point: Point) -> None:
        """Keep the coarsest point that is too fine."""
        if (point.off > 0) != self.rises and (self.finer is None or point.k > self.finer[0].k):
            self.finer = point, [replace(piece, planes=[]) for piece in point.pieces]

    def met(self, point: Point) -> bool:
        """Does a point meet the target?"""
        return point.error < 1 and not point.refused and (point.error if self.rises else point.size) <= self.wanted

    def _rank(self, point: Point) -> tuple[float, ...]:
        """The least of it is the best point."""
        if point.refused:
            return (3, -point.k)
        if self.met(point):
            return (0, point.size, point.error) if self.rises else (0, point.error, point.size)
        return (1, point.error, point.size) if self.rises else (1 + (point.error >= 1), point.size, point.error)

    def _measured(self, k: int, done: passes.Pass, exact: bool) -> Point:
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
        refused = sum(work.of(levels) for piece in done.pieces for levels, _ in piece.planes) > self.work
        if refused:  # too fine, whatever is asked for
            off = min(off, -1.0) if self.rises else max(off, 1.0)
        return Point(k, off, size, error, done.pieces, stream, refused)

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
