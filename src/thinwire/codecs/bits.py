"""Bit strings in numba: fixed-width numbers and Golomb–Rice codes, lowest bit first."""

from __future__ import annotations

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.errors import DecodeError

MOST_LOW_BITS = 24


def pack(numbers: np.ndarray, width: int) -> bytes:
    """Whole numbers (m,) below 2^width at a fixed width, filled up to a byte."""
    out = np.zeros((numbers.size * width + 7) // 8, dtype=np.uint8)
    _pack(numbers.astype(np.uint64), width, out)
    return out.tobytes()


def unpack(payload: bytes, width: int, count: int) -> np.ndarray:
    """Inverse of `pack`: (count,) uint32; DecodeError unless the bytes are just as many as that takes."""
    expected = (count * width + 7) // 8
    if len(payload) != expected:
        raise DecodeError(f"bits: {len(payload)} bytes for {count} numbers of {width} bits, expected {expected}")
    if count * width % 8 and payload[-1] >> count * width % 8:
        raise DecodeError("bits: a spare bit of the last byte is set")
    numbers = np.empty(count, dtype=np.uint32)
    _unpack(np.frombuffer(payload, np.uint8), width, numbers)
    return numbers


@njit(cache=True)
def _pack(numbers, width, out):  # type: ignore[no-untyped-def]
    held, filled, position = np.uint64(0), np.uint64(0), 0
    for i in range(numbers.size):
        held |= numbers[i] << filled
        filled += np.uint64(width)
        while filled >= np.uint64(8):
            out[position] = held & np.uint64(255)
            held >>= np.uint64(8)
            filled -= np.uint64(8)
            position += 1
    if filled > np.uint64(0):
        out[position] = held & np.uint64(255)


@njit(cache=True)
def _unpack(data, width, numbers):  # type: ignore[no-untyped-def]
    held, filled, position = np.uint64(0), np.uint64(0), 0
    keep = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    for i in range(numbers.size):
        while filled < np.uint64(width):
            held |= np.uint64(data[position]) << filled
            filled += np.uint64(8)
            position += 1
        numbers[i] = held & keep
        held >>= np.uint64(width)
        filled -= np.uint64(width)


def rice_parameter(gaps: np.ndarray) -> int:
    """The least b in 0 … 24 with the shortest Golomb–Rice code: Σ (gap >> b) + 1 + b bits, which is convex in b."""
    b, halves = 0, (gaps >> np.uint32(1)) + (gaps & np.uint32(1))  # ⌈gap / 2⌉: what one more low bit saves
    while b < MOST_LOW_BITS and int(halves.sum(dtype=np.int64)) > gaps.size:
        b += 1
        rest = gaps >> np.uint32(b)
        halves = (rest >> np.uint32(1)) + (rest & np.uint32(1))
    return b


def rice_encode(gaps: np.ndarray, b: int) -> bytes:
    """Gaps (m,) uint32 as gap >> b ones, a zero, then b low bits each."""
    total = int((gaps >> np.uint32(b)).sum(dtype=np.int64)) + gaps.size * (1 + b)
    out = np.zeros((total + 7) // 8, dtype=np.uint8)
    _rice_encode(gaps, b, out)
    return out.tobytes()


@njit(cache=True)
def _rice_encode(gaps, b, out):  # type: ignore[no-untyped-def]
    position = 0
    for i in range(gaps.size):
        for _ in range(gaps[i] >> np.uint32(b)):
            out[position >> 3] |= np.uint8(1 << (position & 7))
            position += 1
        position += 1
        for bit in range(b):
            if (gaps[i] >> np.uint32(bit)) & np.uint32(1):
                out[position >> 3] |= np.uint8(1 << (position & 7))
            position += 1


def rice_places(payload: bytes, b: int, count: int, size: int) -> np.ndarray:
    """The `count` places below `size` with these gaps; DecodeError when bits run out, over or are left.

    (count,) int64.
    """
    places, used = np.empty(0, np.int64), -1
    if count * (1 + b) <= 8 * len(payload):
        places = np.empty(count, np.int64)
        used = _rice_places(np.frombuffer(payload, np.uint8), b, places, size)
    spare = payload[-1] >> used % 8 if used > 0 and used % 8 else 0
    if used < 0 or (used + 7) // 8 != len(payload) or spare:
        raise DecodeError("gaps: the bits do not give the number of positions that the payload names")
    return places


@njit(cache=True)
def _rice_places(data, b, places, size):  # type: ignore[no-untyped-def]
    position, end, place = 0, data.size * 8, -1
    for number in range(places.size):
        gap = 0
        while position < end and (data[position >> 3] >> (position & 7)) & 1:
            gap += 1
            position += 1
        position += 1
        if position + b > end:
            return -1
        gap <<= b
        for bit in range(b):
            gap |= ((data[position >> 3] >> (position & 7)) & 1) << bit
            position += 1
        place += gap + 1
        if place >= size:
            return -1
        places[number] = place
    return position
