"""Down: what the strategy wants every node to have, and what has been sent of it.

Without a codec every message holds all arrays exactly, so that nodes need no memory. With one there is a single
sequence of global models x̂, as in `thinwire.versions`: x̂ᵥ = x̂ᵥ₋₁ + decode(encode(xᵥ − x̂ᵥ₋₁)). What coding loses is in
the next difference, so the server feeds its error back by keeping x̂. Nodes train from x̂; the strategy never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from thinwire import frame as frames
from thinwire import rng, versions
from thinwire.codecs import Codec, Context, Float32
from thinwire.errors import DecodeError
from thinwire.flower.dropin import coded, raw
from thinwire.flower.dropin.records import Arrays
from thinwire.flower.dropin.terms import Terms, filled, opened, read_terms
from thinwire.frame import Frame, Kind, Section
from thinwire.versions import Held, History


@dataclass(frozen=True, eq=False)
class Global:
    """The server's end: the arrays as the strategy gave them, and x̂ (n,) float32 of those that are coded.

    since: for each raw array the version in which it last changed.
    """

    run: int
    terms: Terms
    arrays: Arrays
    sent: np.ndarray
    history: History
    since: tuple[int, ...]

    def message(self, have: int | None) -> bytes:
        """Frame that takes a node from the version it holds (None: nothing) to the current one."""
        head = Frame(Kind.KEYFRAME, self.run, 0, self.terms.tag, self.terms.digest)
        frame = self.history.message(have if self.terms.downlink else None, self._keyframe, head)
        base = frame.base if frame.kind == Kind.STEP else None
        return frames.write(replace(frame, sections=frame.sections + filled((Section.RAW, self._raw(base)))))

    def _keyframe(self) -> tuple[tuple[int, bytes], ...]:
        values = Float32().encode(self.sent, Context(self.terms.split.layout))
        return filled((Section.TERMS, self.terms.data), (Section.VALUES, values))

    def _raw(self, base: int | None) -> bytes:
        """The raw arrays for a node that holds version `base`, or none."""
        split = self.terms.split
        arrays = [self.arrays[number] for number in split.rest]
        if base is None:
            return raw.write(split.rest_items, arrays, [None] * len(arrays))
        held = [version <= base for version in self.since]
        return raw.write_held(split.rest_items, arrays, held)


def first(run: int, terms: Terms, arrays: Arrays, version: int = 0) -> Global:
    """A global model that begins a sequence: it goes out as a keyframe."""
    sent = terms.split.vector(arrays)
    terms.split.check("broadcast", sent, arrays)
    return Global(run, terms, arrays, sent, History(version), (version,) * len(terms.split.rest))


def advance(old: Global, terms: Terms, arrays: Arrays) -> Global:
    """The next global model; the same one when no array has changed. Other terms begin a new sequence."""
    version = old.history.version + 1
    if old.terms != terms or terms.downlink is None:
        return first(old.run, terms, arrays, version)
    same = [one.tobytes() == other.tobytes() for one, other in zip(old.arrays, arrays, strict=True)]
    if all(same):
        return old
    split, codec, context = terms.split, terms.downlink, _context(old.run, terms, version)
    wanted = split.vector(arrays) - old.sent
    split.check("broadcast", wanted, arrays)
    above = split.above(arrays, [old.sent[entry.slice] for entry in split.layout])
    step = coded.encode(wanted, coded.marks(wanted, split.layout, above), codec, context)
    sent = _stepped(old.sent, step, codec, context)
    since = tuple(was if same[number] else version for number, was in zip(split.rest, old.since, strict=True))
    return Global(old.run, terms, arrays, sent, old.history.push(step, most_bytes=sent.nbytes), since)


def _context(run: int, terms: Terms, version: int) -> Context:
    return Context(terms.split.layout, seed=rng.integer(run, version, purpose="downlink"))


def _stepped(sent: np.ndarray, step: bytes, codec: Codec, context: Context) -> np.ndarray:
    """x̂ of a version, from the one before it: the same on both ends.  # (n,) -> (n,)"""
    change = coded.decode(step, codec, context)
    with np.errstate(over="ignore", invalid="ignore"):
        now = sent + change.values
    for entry, mark in zip(context.layout, change.marks, strict=True):
        if mark == coded.FLOOR:
            np.maximum(now[entry.slice], 0, out=now[entry.slice])
    return now


@dataclass(frozen=True, eq=False)
class Copy:
    """A node's end: x̂ (n,) float32, the raw arrays, and the terms that they came under."""

    terms: Terms
    sent: np.ndarray
    rest: Arrays


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
    value = replace(now.value, rest=_rest(frame, now.value))
    return Received(replace(now, value=value), terms.split.join(value.sent, value.rest))


def _rest(frame: Frame, copy: Copy) -> Arrays:
    """The raw arrays of a broadcast, those that a step leaves out from the copy held."""
    items = copy.terms.split.rest_items
    if frame.kind == Kind.KEYFRAME:
        data = opened(frame, Section.TERMS, Section.VALUES, Section.RAW).get(Section.RAW, b"")
        return raw.read(data, items, [None] * len(items))[0]
    return raw.read(opened(frame, Section.RAW, many=Section.STEP).get(Section.RAW, b""), items, copy.rest)[0]


def _read_keyframe(frame: Frame) -> Copy:
    terms = read_terms(frame.one(Section.TERMS))
    values = b"".join(frame.all(Section.VALUES))
    return Copy(terms, Float32().decode(values, Context(terms.split.layout)), ())


def _apply(run: int, step: bytes, old: Copy, version: int) -> Copy:
    if old.terms.downlink is None:
        raise DecodeError("broadcast: a step, where nothing is coded")
    context = _context(run, old.terms, version)
    return replace(old, sent=_stepped(old.sent, step, old.terms.downlink, context))


def _same(a: Copy, b: Copy) -> bool:
    return a.terms == b.terms and a.sent.tobytes() == b.sent.tobytes()
