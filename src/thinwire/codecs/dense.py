"""Dense casts: every entry at a fixed width, little-endian. The floor that all other codecs are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs import trace
from thinwire.codecs.base import Context, checked
from thinwire.codecs.kernels import njit
from thinwire.errors import DecodeError


def _entries(payload: bytes, dtype: str, context: Context) -> np.ndarray:
    """The payload as an array of the layout's size; DecodeError on any other length."""
    expected = context.layout.size * np.dtype(dtype).itemsize
    if len(payload) != expected:
        raise DecodeError(f"dense: {len(payload)} bytes for {context.layout.size} entries, expected {expected}")
    trace.cut("values", len(payload))
    return np.frombuffer(payload, dtype=dtype)


@dataclass(frozen=True)
class Float32:
    """Each entry as IEEE 754 binary32: 4 n bytes, lossless, NaN payloads kept."""

    id: ClassVar[str] = "float32"
    dtype: ClassVar[str] = "float32"
    exact: ClassVar[bool] = True

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """4 n bytes."""
        return checked(x, np.float32, context).astype("<f4", copy=False).tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """The very array."""
        return _entries(payload, "<f4", context).astype(np.float32)


BLOCK = 1 << 15  # entries that stay in cache between the two passes of `_half`


@njit(cache=True)
def _half(words, shifted, out):  # type: ignore[no-untyped-def]
    """Bits of float32 entries to those of the nearest float16, ties to even; finite ones saturate at 65504.

    shifted: the bits of |x| + ½, whose last place is 2⁻²⁴, that of the smallest float16.
    """
    for i in range(words.size):
        magnitude = words[i] & np.uint32(0x7FFFFFFF)
        odd = (magnitude >> np.uint32(13)) & np.uint32(1)
        half = (magnitude + np.uint32(0x0FFF) + odd - np.uint32(0x38000000)) >> np.uint32(13)
        half = half if magnitude >= np.uint32(0x38800000) else shifted[i] - np.uint32(0x3F000000)
        half = half if magnitude < np.uint32(0x477FE000) else np.uint32(0x7BFF)
        payload = (magnitude & np.uint32(0x7FFFFF)) >> np.uint32(13)
        payload = np.uint32(1) if magnitude > np.uint32(0x7F800000) and payload == 0 else payload
        half = half if magnitude < np.uint32(0x7F800000) else np.uint32(0x7C00) | payload
        out[i] = np.uint16(half | ((words[i] >> np.uint32(16)) & np.uint32(0x8000)))


def half_bits(x: np.ndarray) -> np.ndarray:
    """Float16 bits of float32 entries: what numpy's cast gives within ± 65504, several times as fast.  # (n,) uint16"""
    x, out = np.ascontiguousarray(x), np.empty(x.size, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        for start in range(0, x.size, BLOCK):
            part = x[start : start + BLOCK]
            shifted = (np.abs(part) + np.float32(0.5)).view(np.uint32)
            _half(part.view(np.uint32), shifted, out[start : start + BLOCK])
    return out


@dataclass(frozen=True)
class Float16:
    """Each entry rounded to IEEE 754 binary16 (ties to even): 2 n bytes, relative error ≤ 2⁻¹¹ above 6.1e-5.

    A finite entry beyond ±65504 becomes ±65504, so that no overflow turns into an infinity.
    """

    id: ClassVar[str] = "float16"
    dtype: ClassVar[str] = "float32"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """2 n bytes."""
        return half_bits(checked(x, np.float32, context)).astype("<u2", copy=False).tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """Entries on the binary16 grid."""
        with np.errstate(invalid="ignore"):
            return _entries(payload, "<f2", context).astype(np.float32)


@dataclass(frozen=True)
class BFloat16:
    """Each entry rounded to the upper half of binary32 (ties to even): 2 n bytes, relative error ≤ 2⁻⁸.

    A finite entry that would round to infinity becomes the largest finite bfloat16; NaN stays NaN.
    """

    id: ClassVar[str] = "bfloat16"
    dtype: ClassVar[str] = "float32"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """2 n bytes."""
        bits = checked(x, np.float32, context).view(np.uint32)
        magnitude = bits & np.uint32(0x7FFFFFFF)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        top = (bits >> np.uint32(16)) & np.uint32(0x8000)
        overflow = (magnitude < 0x7F800000) & ((rounded & np.uint32(0x7FFF)) >= 0x7F80)
        rounded = np.where(overflow, top | np.uint32(0x7F7F), rounded)
        rounded = np.where(magnitude > 0x7F800000, top | np.uint32(0x7FC0), rounded)
        return rounded.astype("<u2").tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """Entries on the bfloat16 grid."""
        return (_entries(payload, "<u2", context).astype(np.uint32) << np.uint32(16)).view(np.float32)


CASTS = (Float32, Float16, BFloat16)  # whose decoding is a copy
