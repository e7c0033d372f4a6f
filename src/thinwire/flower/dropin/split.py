"""Split: which arrays are coded, as one float32 vector under a layout, and which travel as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np

from thinwire.codecs import Codec
from thinwire.errors import DecodeError
from thinwire.flower.dropin.manifest import Item, Manifest
from thinwire.flower.dropin.records import Arrays
from thinwire.layout import Layout


@dataclass(frozen=True)
class Split:
    """The arrays numbered in `coded` make one vector (n,) float32; the rest is raw, little-endian, in order.

    The vector holds the arrays themselves or, given a base (an array for each coded one), what they are more.
    """

    manifest: Manifest
    coded: tuple[int, ...]

    @cached_property
    def layout(self) -> Layout:
        """Layout of the vector. Numbers in front, or a/b of record c and b of record c/a would share a name."""
        items = (self.manifest.items[number] for number in self.coded)
        return Layout.of({f"{place} {item.record}/{item.key}": item.shape for place, item in enumerate(items)})

    @cached_property
    def rest(self) -> tuple[int, ...]:
        """Numbers of the arrays that travel raw."""
        return tuple(sorted(set(range(len(self.manifest.items))) - set(self.coded)))

    def vector(self, arrays: Arrays, base: Arrays | None = None) -> np.ndarray:
        """The coded arrays, less the base.  # (n,) float32"""
        flat = np.empty(self.layout.size, dtype=np.float32)
        with np.errstate(all="ignore"):
            for number, entry, before in zip(self.coded, self.layout, _or_zeros(base), strict=False):
                flat[entry.slice] = np.subtract(arrays[number], before, dtype=np.float64).ravel()
        return flat

    def raw(self, arrays: Arrays) -> bytes:
        """The other arrays."""
        return b"".join(arrays[n].astype(_wire(self.manifest.items[n]), copy=False).tobytes() for n in self.rest)

    def join(self, vector: np.ndarray, raw: bytes, base: Arrays | None = None) -> list[np.ndarray]:
        """All arrays, in the manifest's dtypes; DecodeError unless the raw bytes are those of the rest."""
        items = self.manifest.items
        arrays = dict(zip(self.rest, _opened(raw, [items[number] for number in self.rest]), strict=True))
        with np.errstate(all="ignore"):
            for number, entry, before in zip(self.coded, self.layout, _or_zeros(base), strict=False):
                wide = vector[entry.slice].astype(np.float64).reshape(entry.shape) + before
                arrays[number] = wide.astype(items[number].dtype)
        return [arrays[number] for number in range(len(items))]


def _or_zeros(base: Arrays | None) -> Iterable[np.ndarray | float]:
    return repeat(0.0) if base is None else base


def _wire(item: Item) -> np.dtype:
    return np.dtype(item.dtype).newbyteorder("<")


def _opened(raw: bytes, items: list[Item]) -> list[np.ndarray]:
    """Arrays off one run of bytes."""
    if len(raw) != (expected := sum(item.nbytes for item in items)):
        raise DecodeError(f"raw: {len(raw)} bytes, {expected} expected for {len(items)} arrays")
    arrays, start = [], 0
    for item in items:
        arrays.append(_array(raw[start : start + item.nbytes], item))
        start += item.nbytes
    return arrays


def _array(data: bytes, item: Item) -> np.ndarray:
    if item.dtype == "bool" and data.strip(b"\0\1"):
        raise DecodeError(f"raw: {item.label} is bool and holds other bytes than 0 and 1")
    return np.frombuffer(data, dtype=_wire(item)).astype(item.dtype).reshape(item.shape)


def downward(manifest: Manifest, codec: Codec | None) -> Split:
    """What a broadcast codes: all arrays of real numbers but scalars; nothing without a codec.

    Scalars are counters more often than weights (BatchNorm's), and steps of 1 would drown steps of 0.001.
    """
    if codec is None:
        return Split(manifest, ())
    return Split(manifest, tuple(number for number, item in enumerate(manifest.items) if _fits(item)))


def upward(received: Manifest, reply: Manifest) -> tuple[Split, tuple[int, ...]]:
    """What a reply codes, against which arrays received: those of one name and shape, real numbers, no scalars."""
    pairs = list(_pairs(received, reply))
    return Split(reply, tuple(number for number, _ in pairs)), tuple(base for _, base in pairs)


def _pairs(received: Manifest, reply: Manifest) -> Iterable[tuple[int, int]]:
    for number, item in enumerate(reply.items):
        base = received.by_name.get(item.name)
        if base is not None and _fits(item) and _fits(twin := received.items[base]) and twin.shape == item.shape:
            yield number, base


def _fits(item: Item) -> bool:
    return item.floating and item.shape != ()
