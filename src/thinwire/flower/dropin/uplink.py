"""Up: how a node's reply differs from what it received, and the reply made whole on the server.

The server adds the difference to the arrays that its strategy gave, so the strategy sees replies to its own arrays
also where nodes train from a coded x̂.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Codec, Context, at, codec_name, tag
from thinwire.errors import DecodeError, NeedKeyframe
from thinwire.flower.dropin.changes import changed, changes
from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.manifest import Manifest, from_json, to_json
from thinwire.flower.dropin.records import Arrays
from thinwire.flower.dropin.terms import Terms, describe, filled, opened
from thinwire.frame import Frame, Kind, Section
from thinwire.layout import Layout


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
    """A reply on its way up: the change (n,) float32 that is to be told, the codec's payload of it, the frame."""

    change: np.ndarray
    payload: bytes
    codec: Codec
    context: Context
    frame: bytes

    def lost(self, share: float = 1) -> Residual:
        """What the server will not see of the change, or a share of it."""
        with np.errstate(all="ignore"):
            left = self.change - _decoded(self.payload, self.codec, self.context)
        return Residual(self.context.layout.digest, left if share == 1 else np.float32(share) * left)


def encode(
    address: Address, terms: Terms, received: Arrays, manifest: Manifest, reply: Arrays, residual: Residual | None
) -> Update:
    """A reply's arrays against those received. A residual of the same layout is added before coding."""
    split, base = terms.split_reply(manifest)
    codec, context = _codec(terms, address), address.context(split.layout)
    change = split.vector(reply, [received[number] for number in base])
    if residual is not None and residual.layout == split.layout.digest:
        change += residual.values
    payload = codec.encode(change, context) if change.size else b""
    parts = filled(
        (Section.VALUES, payload), (Section.RAW, split.raw(reply)), (Section.CHANGES, _told(terms, manifest))
    )
    frame = frames.write(Frame(Kind.UPDATE, address.run, address.round, tag(terms.uplink), terms.digest, parts))
    return Update(change, payload, codec, context, frame)


def _codec(terms: Terms, address: Address) -> Codec:
    return at(terms.uplink, max(0, address.round - 1))


def _told(terms: Terms, manifest: Manifest) -> bytes:
    told = changes(terms.manifest, manifest)
    return b"" if told is None else to_json(told)


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply made whole."""

    manifest: Manifest
    arrays: list[np.ndarray]


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
    change = _decoded(parts.get(Section.VALUES, b""), _codec(terms, address), address.context(split.layout))
    arrays = split.join(change, parts.get(Section.RAW, b""), [model.arrays[number] for number in base])
    return Reply(manifest, _finite(manifest, arrays))


def _check_codec(codec_tag: int, expected: Codec) -> None:
    if codec_tag != tag(expected):
        name = codec_name(codec_tag)
        found = f"{name} in another configuration" if name == expected.id else name
        raise DecodeError(f"codec: the ClientApp codes with {found}, the strategy expects {describe(expected)}")


def _decoded(payload: bytes, codec: Codec, context: Context) -> np.ndarray:
    if context.layout.size:
        return codec.decode(payload, context)
    if payload:
        raise DecodeError(f"update: {len(payload)} bytes for no coded array")
    return np.empty(0, dtype=np.float32)


def _finite(manifest: Manifest, arrays: list[np.ndarray]) -> list[np.ndarray]:
    for item, array in zip(manifest.items, arrays, strict=True):
        if not np.isfinite(array).all():
            raise DecodeError(f"update: {item.label} holds NaN or infinite entries")
    return arrays


def update_norm(model: Global, reply: Reply) -> float:
    """Euclidean norm of what a reply changes; an array of a new name or shape is a change as a whole.

    Whole numbers count where they stand for real ones.
    """
    squares = 0.0
    for item, array in zip(reply.manifest.items, reply.arrays, strict=True):
        number = model.terms.manifest.by_name.get(item.name)
        before = np.zeros((), dtype=bool) if number is None else model.arrays[number]
        if {array.dtype.kind, before.dtype.kind} & set("fc"):
            squares += _square(array, before)
    return float(np.sqrt(squares))


def _square(array: np.ndarray, before: np.ndarray) -> float:
    change = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    with np.errstate(over="ignore"):
        if before.shape == array.shape:
            change = change - before
        return float((change * change.conj()).real.sum())
