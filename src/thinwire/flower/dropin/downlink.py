"""Down: what the strategy wants every node to have, and what has been sent of it.

Without a codec every message holds all arrays exactly, so that nodes need no memory. With one there is a single
sequence of global models x̂, as in `thinwire.versions`: x̂ᵥ = x̂ᵥ₋₁ + decode(encode(xᵥ − x̂ᵥ₋₁)). What coding loses is in
the next difference, so the server feeds its error back by keeping x̂. Nodes train from x̂; the strategy never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from thinwire import frame as frames
from thinwire import rng, versions
from thinwire.codecs import Codec, Context, Float32
from thinwire.errors import DecodeError
from thinwire.flower.dropin.records import Arrays
from thinwire.flower.dropin.terms import Terms, filled, opened, read_terms
from thinwire.frame import Frame, Kind, Section
from thinwire.versions import Held, History


@dataclass(frozen=True, eq=False)
class Global:
    """The server's end: the arrays as the strategy gave them, and x̂ (n,) float32 of those that are coded."""

    run: int
    terms: Terms
    arrays: Arrays
    sent: np.ndarray
    history: History

    def message(self, have: int | None) -> bytes:
        """Frame that takes a node from the version it holds (None: nothing) to the current one."""
        head = Frame(Kind.KEYFRAME, self.run, 0, self.terms.tag, self.terms.digest)
        frame = self.history.message(have if self.terms.downlink else None, self._keyframe, head)
        return frames.write(replace(frame, sections=frame.sections + filled((Section.RAW, self._raw))))

    def _keyframe(self) -> tuple[tuple[int, bytes], ...]:
        values = Float32().encode(self.sent, Context(self.terms.split.layout))
        return filled((Section.TERMS, self.terms.data), (Section.VALUES, values))

    @cached_property
    def _raw(self) -> bytes:
        return self.terms.split.raw(self.arrays)


def first(run: int, terms: Terms, arrays: Arrays, version: int = 0) -> Global:
    """A global model that begins a sequence: it goes out as a keyframe."""
    return Global(run, terms, arrays, terms.split.vector(arrays), History(version))


def advance(old: Global, terms: Terms, arrays: Arrays) -> Global:
    """The next global model; the same one when no array has changed. Other terms begin a new sequence."""
    version = old.history.version + 1
    if old.terms != terms or terms.downlink is None:
        return first(old.run, terms, arrays, version)
    if all(one.tobytes() == other.tobytes() for one, other in zip(old.arrays, arrays, strict=True)):
        return old
    wanted = terms.split.vector(arrays) - old.sent
    step = terms.downlink.encode(wanted, _context(old.run, terms, version))
    sent = _stepped(old.run, terms, terms.downlink, old.sent, step, version)
    return Global(old.run, terms, arrays, sent, old.history.push(step, most_bytes=sent.nbytes))


def _context(run: int, terms: Terms, version: int) -> Context:
    return Context(terms.split.layout, seed=rng.integer(run, version, purpose="downlink"))


def _stepped(run: int, terms: Terms, codec: Codec, sent: np.ndarray, step: bytes, version: int) -> np.ndarray:
    """x̂ of a version, from the one before it: the same on both ends.  # (n,) -> (n,)"""
    change = codec.decode(step, _context(run, terms, version))
    with np.errstate(over="ignore", invalid="ignore"):
        return sent + change


@dataclass(frozen=True, eq=False)
class Copy:
    """A node's end: x̂ (n,) float32 and the terms that it came under."""

    terms: Terms
    sent: np.ndarray


@dataclass(frozen=True, eq=False)
class Received:
    """A broadcast, decoded: the arrays for the app, and what the node must hold to take a step next time."""

    held: Held[Copy]
    arrays: list[np.ndarray]

    @property
    def terms(self) -> Terms:
        """What the broadcast came under."""
        return self.held.value.terms


def receive(data: bytes, held: Held[Copy] | None) -> Received:
    """What a broadcast gives a node that holds a version of its run, or nothing.

    NeedKeyframe when a step builds on what the node does not hold; DecodeError with the reason.
    """
    frame = frames.expect(frames.read(data), kinds=(Kind.KEYFRAME, Kind.STEP))
    have = held.version if held else None
    now = versions.receive(frame, held, have, _read_keyframe, partial(_apply, frame.run), _same)
    terms = now.value.terms
    frames.expect(frame, codec=terms.tag, layout=terms.digest)
    return Received(now, terms.split.join(now.value.sent, _raw(frame)))


def _raw(frame: Frame) -> bytes:
    if frame.kind == Kind.KEYFRAME:
        return opened(frame, Section.TERMS, Section.VALUES, Section.RAW).get(Section.RAW, b"")
    return opened(frame, Section.RAW, many=Section.STEP).get(Section.RAW, b"")


def _read_keyframe(frame: Frame) -> Copy:
    terms = read_terms(frame.one(Section.TERMS))
    values = b"".join(frame.all(Section.VALUES))
    return Copy(terms, Float32().decode(values, Context(terms.split.layout)))


def _apply(run: int, step: bytes, old: Copy, version: int) -> Copy:
    if old.terms.downlink is None:
        raise DecodeError("broadcast: a step, where nothing is coded")
    return Copy(old.terms, _stepped(run, old.terms, old.terms.downlink, old.sent, step, version))


def _same(a: Copy, b: Copy) -> bool:
    return a.terms == b.terms and a.sent.tobytes() == b.sent.tobytes()
