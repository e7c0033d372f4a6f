"""How bytes go wrong: (bytes, other bytes, random source) -> bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import numpy as np

from thinwire.codecs import varint

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]


def flip_bits(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(draw.integers(1, 5)):
        out[draw.integers(len(out))] ^= 1 << draw.integers(8)
    return bytes(out)


def change_bytes(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(draw.integers(1, 9)):
        out[draw.integers(len(out))] = (0, 1, 0x7F, 0x80, 0xFF, draw.integers(256))[draw.integers(6)]
    return bytes(out)


def truncate(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return data[: draw.integers(len(data))]


def insert(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    at = draw.integers(len(data) + 1)
    return data[:at] + draw.bytes(draw.integers(1, 20)) + data[at:]


def cut_out(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    at, length = draw.integers(len(data)), draw.integers(1, 9)
    return data[:at] + data[at + length :]


def splice(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return data[: draw.integers(len(data) + 1)] + other[draw.integers(len(other) + 1) :]


def huge_number(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    """A varint or a length field near the front says something enormous."""
    at = draw.integers(min(len(data), 48))
    huge = [b"\xff" * 4, b"\xff\xff\xff\x7f", varint.write([2**56 - 1]), varint.write([2**24 - 1]), b"\0\0\0\x80"]
    said = huge[draw.integers(len(huge))]
    return data[:at] + said + data[at + (1, len(said))[draw.integers(2)] :]


def noise(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return draw.bytes(draw.integers(0, 60))


MUTATIONS: list[Mutation] = [flip_bits, change_bytes, truncate, insert, cut_out, splice, huge_number, noise]


def mutant(samples: Sequence[bytes], index: int, draw: np.random.Generator) -> bytes:
    """One of non-empty samples, gone wrong; every mutation in turn."""
    data, other = (samples[draw.integers(len(samples))] for _ in range(2))
    return MUTATIONS[index % len(MUTATIONS)](data, other, draw)


def mutations(samples: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` mutants of those samples that are not empty."""
    draw = np.random.default_rng(seed)
    samples = [sample for sample in samples if sample]
    for index in range(count):
        yield mutant(samples, index, draw)


def mended(data: bytes) -> bytes:
    """The same bytes with a checksum that fits."""
    return data[:-4] + struct.pack("<I", crc32(data[:-4]))
