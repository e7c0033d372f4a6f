"""Up: how a node's reply differs from what it received, and the reply made whole on the server.

The server adds the difference to the arrays that its strategy gave, so the strategy sees replies to its own arrays
also where nodes train from a coded x̂.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Codec, Context, at, codec_name, nmse, tag
from thinwire.errors import DecodeError, NeedKeyframe
from thinwire.flower.dropin import coded, raw
from thinwire.flower.dropin.buffers import fault
from thinwire.flower.dropin.changes import changed, changes
from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.manifest import Manifest, from_json, to_json
from thinwire.flower.dropin.records import Arrays
from thinwire.flower.dropin.split import Split, twins
from thinwire.flower.dropin.terms import Terms, describe, filled, opened
from thinwire.frame import Frame, Kind, Section
from thinwire.layout import Layout

INFINITE = 0x7F800000  # float32's bits of it


@dataclass(frozen=True)
class Address:
    """Which reply: of which node in which round of which run."""

    run: int
    round: int
    node: int

    def context(self, layout: Layout) -> Context:
        """What the reply is coded with."""
        return Context(layout, seed=rng.integer(self.run, self.round, self.node, "uplink"))


def request(address: Address) -> bytes:
    """Frame with which a node asks for a keyframe."""
    return frames.write(Frame(Kind.REQUEST, address.run, address.round, 0, bytes(8)))


@dataclass(frozen=True, eq=False)
class Residual:
    """What coding has lost so far (n,) float32, and the digest of the layout that it belongs to."""

    layout: bytes
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Update:
    """A reply on its way up: the change (n,) float32 that is to be told, what the server sees of it, the frame."""

    change: np.ndarray
    seen: np.ndarray
    layout: Layout
    frame: bytes

    def lost(self, share: float = 1) -> Residual:
        """What the server will not see of the change, or a share of it."""
        with np.errstate(all="ignore"):
            left = self.change - self.seen
        return Residual(self.layout.digest, left if share == 1 else np.float32(share) * left)


def encode(
    address: Address, terms: Terms, received: Arrays, manifest: Manifest, reply: Arrays, residual: Residual | None
) -> Update:
    """A reply's arrays against those received. A residual of the same layout is added before coding.

    TrainingError names an array that is not finite.
    """
    split, base = terms.split_reply(manifest)
    before = [received[number] for number in base]
    change = split.vector(reply, before)
    if residual is not None and residual.layout == split.layout.digest and residual.values.shape == change.shape:
        change += residual.values
    split.check("update", change, reply)
    values, seen = _values(split, change, reply, before, _codec(terms, address), address)
    twins = _twins(terms, split, received)
    rest = raw.write(split.rest_items, [reply[number] for number in split.rest], twins)
    parts = filled((Section.VALUES, values), (Section.RAW, rest), (Section.CHANGES, _told(terms, manifest)))
    frame = frames.write(Frame(Kind.UPDATE, address.run, address.round, tag(terms.uplink), terms.digest, parts))
    return Update(change, seen, split.layout, frame)


def _values(
    split: Split, change: np.ndarray, reply: Arrays, before: Arrays, codec: Codec, address: Address
) -> tuple[bytes, np.ndarray]:
    """The change coded, behind the error of coding it, and what the server will see of it."""
    if not split.coded:
        return b"", change
    context = address.context(split.layout)
    data = coded.encode(change, coded.marks(change, split.layout, split.above(reply, before)), codec, context)
    made = coded.decode(data, codec, context)
    seen = made.values
    for entry, mark, array in zip(split.layout, made.marks, before, strict=True):
        if mark == coded.FLOOR:
            seen[entry.slice] = np.maximum(seen[entry.slice], -array.ravel().astype(np.float64))
    return _error_bytes(nmse(change, seen)) + data, seen


def _error_bytes(nmse: float) -> bytes:
    """An error in two bytes: the upper half of a float32, rounded."""
    with np.errstate(over="ignore"):
        bits = int(np.float32(nmse).view(np.uint32))
    return ((min(bits, INFINITE) + 0x8000) >> 16).to_bytes(2, "little")


def _error(data: bytes) -> float:
    bits = int.from_bytes(data, "little") << 16
    if len(data) != 2 or bits > INFINITE:
        raise DecodeError("update: no error of coding in front of the values")
    return float(np.uint32(bits).view(np.float32))


def _codec(terms: Terms, address: Address) -> Codec:
    return at(terms.uplink, max(0, address.round - 1))


def _twins(terms: Terms, reply: Split, arrays: Arrays) -> list[np.ndarray | None]:
    """What both ends hold of a reply's raw arrays: those of the broadcast, in the reply's dtypes."""
    numbers = twins(terms.split, reply)
    return [
        None if number is None else raw.cast(arrays[number], item.dtype)
        for item, number in zip(reply.rest_items, numbers, strict=True)
    ]


def _told(terms: Terms, manifest: Manifest) -> bytes:
    told = changes(terms.manifest, manifest)
    return b"" if told is None else to_json(told)


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply made whole.

    still: names of the arrays that the node left as they were. error: NMSE of the coded change, as the node says;
    None where nothing is coded.
    """

    manifest: Manifest
    arrays: list[np.ndarray]
    still: frozenset[tuple[str, str]]
    error: float | None


def decode(address: Address, model: Global, data: bytes) -> Reply:
    """Inverse of `encode` against the strategy's own arrays.

    NeedKeyframe when the node asks for one; DecodeError with the reason, also when a number is not finite.
    """
    terms = model.terms
    frame = frames.expect(frames.read(data), run=address.run, kinds=(Kind.UPDATE, Kind.REQUEST), round=address.round)
    if frame.kind == Kind.REQUEST:
        raise NeedKeyframe(model.history.version, None)
    _check_codec(frame.codec, terms.uplink)
    frames.expect(frame, layout=terms.digest)
    parts = opened(frame, Section.VALUES, Section.RAW, Section.CHANGES)
    manifest = terms.manifest
    if Section.CHANGES in parts:
        manifest = changed(manifest, from_json(parts[Section.CHANGES]))
    split, base = terms.split_reply(manifest)
    change, error = _change(parts.get(Section.VALUES, b""), split, _codec(terms, address), address)
    rest, held = raw.read(parts.get(Section.RAW, b""), split.rest_items, _twins(terms, split, model.arrays))
    floor = [mark == coded.FLOOR for mark in change.marks]
    arrays = split.join(change.values, rest, [model.arrays[number] for number in base], floor)
    still = [number for number, mark in zip(split.coded, change.marks, strict=True) if mark == coded.STILL]
    still += [number for number, same in zip(split.rest, held, strict=True) if same]
    _check_numbers(model, manifest, arrays)
    return Reply(manifest, arrays, frozenset(manifest.items[number].name for number in still), error)


def _change(data: bytes, split: Split, codec: Codec, address: Address) -> tuple[coded.Change, float | None]:
    if split.coded:
        return coded.decode(data[2:], codec, address.context(split.layout)), _error(data[:2])
    if data:
        raise DecodeError(f"update: {len(data)} bytes for no coded array")
    return coded.Change(np.empty(0, dtype=np.float32), ()), None


def _check_codec(codec_tag: int, expected: Codec) -> None:
    if codec_tag != tag(expected):
        name = codec_name(codec_tag)
        found = f"{name} in another configuration" if name == expected.id else name
        raise DecodeError(f"codec: the ClientApp codes with {found}, the strategy expects {describe(expected)}")


def _check_numbers(model: Global, manifest: Manifest, arrays: Arrays) -> None:
    known = model.terms.manifest.by_name
    for item, array in zip(manifest.items, arrays, strict=True):
        before = model.arrays[known[item.name]] if item.name in known else None
        if wrong := fault(item, array, before):
            raise DecodeError(f"update: {wrong}")
