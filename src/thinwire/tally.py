"""Tally: what both ends of FedPM hold, and how it travels as keyframe and step.

Of `total` masks since the last reset, `ones[i]` keep weight i. Integers only, so both ends agree exactly.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np

from thinwire.codecs import Codec, Context, varint
from thinwire.errors import DecodeError
from thinwire.frame import Frame, Section
from thinwire.layout import Layout
from thinwire.versions import Sections

MAX_TOTAL = 2**24 - 1
_SEED = struct.Struct("<Q8s")


@dataclass(frozen=True)
class Tally:
    """Counts (d,) uint32 of `total` masks, and the seed of the frozen weights that they keep or drop."""

    seed: int
    total: int
    ones: np.ndarray

    @property
    def shared(self) -> np.ndarray | None:
        """The counts as coding context; None while there are none."""
        return self.ones if self.total else None

    def probabilities(self, prior: float = 1.0) -> np.ndarray:
        """θ of every count c = 0 … total: (α − 1)/(α + β − 2), α = prior + c, β = prior + total − c; ½ before any."""
        if self.total == 0:
            return np.full(1, 0.5)
        return (np.arange(self.total + 1) + prior - 1) / (self.total + 2 * prior - 2)

    def theta(self, prior: float = 1.0) -> np.ndarray:
        """θ of every weight.  # (d,) float32."""
        return self.probabilities(prior).astype(np.float32)[self.ones]


@dataclass(frozen=True)
class TallyWire:
    """A tally as sections of a frame. `votes` codes the counts; `digest` is that of the frozen weights made here."""

    votes: Codec
    layout: Layout
    digest: bytes

    def keyframe(self, tally: Tally) -> Sections:
        """Sections that hold a tally exactly: seed and digest, total, counts (none while total is 0)."""
        head = (Section.SEED, _SEED.pack(tally.seed, self.digest)), (Section.TOTAL, varint.write([tally.total]))
        if not tally.total:
            return head
        return (*head, (Section.VALUES, self.votes.encode(tally.ones, Context(self.layout))))

    def read_keyframe(self, frame: Frame) -> Tally:
        """The tally of a keyframe; DecodeError if the sender's frozen weights are not ours."""
        seed_section = frame.one(Section.SEED)
        if len(seed_section) != _SEED.size:
            raise DecodeError(f"keyframe: seed section of {len(seed_section)} bytes, {_SEED.size} expected")
        seed, digest = _SEED.unpack(seed_section)
        if digest != self.digest:
            raise DecodeError("keyframe: the frozen weights made here are not those of the sender")
        reader = varint.Reader(frame.one(Section.TOTAL))
        total = reader.next(most=MAX_TOTAL)
        reader.end()
        if len(frame.sections) != (3 if total else 2):
            raise DecodeError(f"keyframe: {len(frame.sections)} sections for counts of {total} masks")
        if not total:
            return Tally(seed, 0, np.zeros(self.layout.size, dtype=np.uint32))
        return Tally(seed, total, self._counts(frame.one(Section.VALUES), total, Context(self.layout)))

    def step(self, old: Tally, new: Tally) -> bytes:
        """The new total and counts, coded against the old counts."""
        return varint.write([new.total]) + self.votes.encode(new.ones, Context(self.layout, old.shared))

    def apply(self, step: bytes, old: Tally, version: int) -> Tally:
        """Inverse of `step`; the same for every version."""
        reader = varint.Reader(step)
        total = reader.next(most=MAX_TOTAL)
        return replace(old, total=total, ones=self._counts(reader.rest(), total, Context(self.layout, old.shared)))

    def _counts(self, payload: bytes, total: int, context: Context) -> np.ndarray:
        ones = self.votes.decode(payload, replace(context, most=total))
        if ones.max(initial=0) > total:
            raise DecodeError(f"tally: a count of {ones.max()} of {total} masks")
        return ones


def same(a: Tally, b: Tally) -> bool:
    """Are the two tallies equal?"""
    return a.seed == b.seed and a.total == b.total and np.array_equal(a.ones, b.ones)
