"""Coded: changes of weights as a codec's payload. Tensors that do not change are left out and stay as they are.

Few codecs are exact about zeros: float16 spends two bytes on each, signSGD and EDEN would move a frozen layer. And a
tensor that was nowhere below 0, and is not, must not get there by coding, were it a variance that nobody named: it is
cut off at 0, which brings every entry nearer to what was coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinwire.codecs import Codec, Context, varint
from thinwire.errors import DecodeError
from thinwire.layout import Entry, Layout

STILL, FLOOR = 1, 2  # two bits a tensor: it does not change; it is nowhere below 0, before and with the change made


@dataclass(frozen=True, eq=False)
class Change:
    """What a payload says: the change (n,) float32, and two bits for each tensor of the layout."""

    values: np.ndarray
    marks: tuple[int, ...]


def marks(values: np.ndarray, layout: Layout, floor: Sequence[bool]) -> tuple[int, ...]:
    """The bits of each tensor of a change. floor: must it not get below 0?"""
    still = [entry.size > 0 and not values[entry.slice].any() for entry in layout]
    return tuple(STILL if same else FLOOR * bool(above) for same, above in zip(still, floor, strict=True))


def encode(values: np.ndarray, told: tuple[int, ...], codec: Codec, context: Context) -> bytes:
    """A change with its marks: the number of bytes of marks, the marks without zeros at their end, the payload."""
    packed = sum(mark << 2 * place for place, mark in enumerate(told))
    head = packed.to_bytes((packed.bit_length() + 7) // 8, "little")
    part = _moving(context, told)
    if part is not context:
        moving = [values[entry.slice] for entry in _kept(context.layout, told)]
        values = np.concatenate([values[:0], *moving])
    payload = codec.encode(values, part) if part.layout.size else b""
    return varint.write([len(head)]) + head + payload


def decode(data: bytes, codec: Codec, context: Context) -> Change:
    """Inverse of `encode`; DecodeError with the reason."""
    told, payload = _marks(data, len(context.layout))
    part = _moving(context, told)
    if payload and not part.layout.size:
        raise DecodeError(f"update: {len(payload)} bytes for no coded array")
    moved = codec.decode(payload, part) if part.layout.size else np.empty(0, dtype=np.float32)
    if part is context:
        return Change(moved, told)
    values = np.zeros(context.layout.size, dtype=np.float32)
    for entry, own in zip(_kept(context.layout, told), part.layout, strict=True):
        values[entry.slice] = moved[own.slice]
    return Change(values, told)


def _marks(data: bytes, tensors: int) -> tuple[tuple[int, ...], bytes]:
    reader = varint.Reader(data)
    packed = int.from_bytes(reader.take(reader.next((2 * tensors + 7) // 8)), "little")
    if packed.bit_length() > 2 * tensors:
        raise DecodeError(f"update: marks of more than {tensors} tensors")
    told = tuple(packed >> 2 * place & 3 for place in range(tensors))
    if STILL | FLOOR in told:
        raise DecodeError("update: a mark that no tensor has")
    return told, reader.rest()


def _kept(layout: Layout, told: tuple[int, ...]) -> list[Entry]:
    return [entry for entry, mark in zip(layout, told, strict=True) if mark != STILL]


def _moving(context: Context, told: tuple[int, ...]) -> Context:
    """The context of the tensors that change; the same one if all do."""
    if STILL not in told:
        return context
    kept = _kept(context.layout, told)
    layout = Layout.of({entry.name: entry.shape for entry in kept}, {entry.name: entry.role for entry in kept})
    return replace(context, layout=layout)
