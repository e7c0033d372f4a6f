"""Positions: a 0/1 mask as a bitmap, as addresses, or as gaps. (`mask` is the range-coded one.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs import bits, trace, varint
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import unpack_bits
from thinwire.errors import ConfigError, DecodeError


def checked_mask(x: np.ndarray, context: Context) -> np.ndarray:
    """The array itself if it is a mask of the layout's size; else ConfigError."""
    x = checked(x, np.uint8, context)
    if x.max(initial=0) > 1:
        raise ConfigError("x", int(x.max()), "a mask of zeros and ones")
    return x


@dataclass(frozen=True)
class Bitmap:
    """One bit an entry, lowest bit of a byte first: ⌈n/8⌉ bytes, whatever the mask."""

    id: ClassVar[str] = "bitmap"
    dtype: ClassVar[str] = "uint8"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """⌈n/8⌉ bytes."""
        return np.packbits(checked_mask(x, context), bitorder="little").tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint8."""
        return unpack_bits(payload, context.layout.size, self.id)


@dataclass(frozen=True)
class Fixed:
    """Addresses of the ones, ascending, ⌈log₂ n⌉ bits each.  Payload: varint number of ones, packed addresses."""

    id: ClassVar[str] = "fixed"
    dtype: ClassVar[str] = "uint8"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """About m ⌈log₂ n⌉ / 8 bytes for m ones."""
        places = np.flatnonzero(checked_mask(x, context))
        return varint.write([places.size]) + bits.pack(places, _width(context))

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint8; DecodeError unless the addresses ascend and lie inside."""
        return _mask(self.places(payload, context), context)

    def places(self, payload: bytes, context: Context) -> np.ndarray:
        """The ones' positions.  # (m,) int64, ascending"""
        reader, size = varint.Reader(payload), context.layout.size
        count = reader.next(most=context.bound(size))
        trace.cut("header", reader.position)
        trace.cut("addresses", len(payload) - reader.position)
        places = bits.unpack(reader.rest(), _width(context), count).astype(np.int64)
        if places.size and (places[-1] >= size or (np.diff(places) <= 0).any()):
            raise DecodeError("fixed: addresses must ascend and lie inside the layout")
        return places


def places(codec: Codec, payload: bytes, context: Context) -> np.ndarray:
    """Positions of the ones that `codec.decode` gives, without an array of n where the codec has them.  # (m,) int64"""
    has: Callable[[bytes, Context], np.ndarray] | None = getattr(codec, "places", None)
    return has(payload, context) if has else np.flatnonzero(codec.decode(payload, context))


def _mask(places: np.ndarray, context: Context) -> np.ndarray:
    mask = np.zeros(context.layout.size, dtype=np.uint8)
    mask[places] = 1
    return mask


def _width(context: Context) -> int:
    return max(context.layout.size - 1, 0).bit_length()


@dataclass(frozen=True)
class Gaps:
    """Distances between the ones, Golomb–Rice coded: within a few percent of n·H₂(m/n) for scattered ones.

    Payload: varint number of ones; if there are any, a byte b, then for each one the zeros before it, g: g >> b ones,
    a zero, the b low bits of g, all lowest first. b is the least of 0 … 24 with the fewest bits.
    Reference: Golomb 1966, Rice 1979.
    """

    id: ClassVar[str] = "gaps"
    dtype: ClassVar[str] = "uint8"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """The best b in 0 … 24."""
        places = np.flatnonzero(checked_mask(x, context))
        if not places.size:
            return varint.write([0])
        gaps = _gaps(places)
        b = bits.rice_parameter(gaps)
        return varint.write([places.size, b]) + bits.rice_encode(gaps, b)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint8; DecodeError also for a b that the writer would not choose: one mask, one payload."""
        return _mask(self.places(payload, context), context)

    def places(self, payload: bytes, context: Context) -> np.ndarray:
        """The ones' positions.  # (m,) int64, ascending"""
        reader, size = varint.Reader(payload), context.layout.size
        count = reader.next(most=context.bound(size))
        b = reader.next(most=bits.MOST_LOW_BITS) if count else 0
        trace.cut("header", reader.position)
        trace.cut("gaps", len(payload) - reader.position)
        places = bits.rice_places(reader.rest(), b, count, size)
        if b != (best := bits.rice_parameter(_gaps(places))):
            raise DecodeError(f"gaps: {b} low bits, {best} are the best")
        return places


def _gaps(places: np.ndarray) -> np.ndarray:
    """Zeros before each one.  # (m,) ascending -> (m,) uint32"""
    return (np.diff(places, prepend=-1) - 1).astype(np.uint32)
