"""Label coders: small whole numbers by Huffman's code, at a fixed width, as positions. (`votes` is range-coded.)"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import numpy as np
from bitarray import bitarray
from bitarray.util import canonical_decode, huffman_code, int2ba

from thinwire.codecs import bits, varint
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.positions import Gaps
from thinwire.errors import ConfigError, DecodeError

SYMBOLS = 256


def checked_labels(x: np.ndarray, context: Context) -> np.ndarray:
    """The array itself if it holds labels 0 … 255 of the layout's size; else ConfigError."""
    x = checked(x, np.uint32, context)
    if x.max(initial=0) >= SYMBOLS:
        raise ConfigError("x", int(x.max()), f"labels below {SYMBOLS}")
    return x


@dataclass(frozen=True)
class Huffman:
    """Canonical Huffman code of the labels: at least one bit a label, whatever the entropy.

    Payload: varint number of code lengths, one byte each (0: label does not occur), the code bits, lowest bit of a
    byte first. With one label in all, no bits follow. Reference: Huffman 1952; canonical form: Schwartz, Kallick 1964.
    """

    id: ClassVar[str] = "huffman"
    dtype: ClassVar[str] = "uint32"
    most: ClassVar[int] = SYMBOLS - 1  # the largest label it takes

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Table and code bits."""
        labels = checked_labels(x, context)
        counts = np.bincount(labels)
        present = Counter({int(label): int(counts[label]) for label in np.flatnonzero(counts)})
        lengths, code = bytearray(counts.size), bitarray(endian="little")
        if len(present) > 1:
            for label, word in huffman_code(present).items():
                lengths[label] = len(word)
            code.encode(_words(_in_order(lengths)), labels.astype(np.uint8).tobytes())
        elif present:
            lengths[next(iter(present))] = 1
        return varint.write([len(lengths)]) + bytes(lengths) + code.tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32; DecodeError unless the lengths are a full prefix code and the bits are just enough."""
        reader, size = varint.Reader(payload), context.layout.size
        count = reader.next(most=SYMBOLS)
        lengths, code = reader.rest()[:count], reader.rest()[count:]
        present = _in_order(lengths)
        if len(lengths) != count or sum(2.0**-length for length, _ in present) not in (0.0, 0.5, 1.0):
            raise DecodeError("huffman: the code lengths are no prefix code")
        if len(present) <= 1:
            if bool(size) != bool(present) or code:
                raise DecodeError("huffman: one label or none, but bits follow or entries are missing")
            return np.full(size, present[0][1] if present else 0, dtype=np.uint32)
        return _decode(code, present, size)


def _in_order(lengths: bytes | bytearray) -> list[tuple[int, int]]:
    """(length, label) of the labels that occur, in canonical order."""
    return sorted((length, label) for label, length in enumerate(lengths) if length)


def _words(present: list[tuple[int, int]]) -> dict[int, bitarray]:
    """Canonical code words: each the one before plus 1, with zeros appended where the length grows."""
    words, word, before = {}, -1, present[0][0]
    for length, label in present:
        word, before = (word + 1) << (length - before), length
        words[label] = bitarray(int2ba(word, length=length, endian="big"), endian="little")
    return words


def _decode(code: bytes, present: list[tuple[int, int]], size: int) -> np.ndarray:
    """Labels of the code bits, by the canonical order (length, label)."""
    stream = bitarray(endian="little")
    stream.frombytes(code)
    counts = np.bincount([length for length, _ in present]).tolist()
    try:
        words = canonical_decode(stream, counts, [label for _, label in present])
        labels = np.frombuffer(bytes(islice(words, size)), np.uint8)
    except ValueError as error:
        raise DecodeError(f"huffman: {error}") from None
    lengths = np.zeros(SYMBOLS, dtype=np.int64)
    lengths[[label for _, label in present]] = [length for length, _ in present]
    used = int(lengths[labels].sum())
    if labels.size != size or (used + 7) // 8 != len(code) or stream[used:].any():
        raise DecodeError(f"huffman: {len(code)} bytes do not hold {size} labels")
    return labels.astype(np.uint32)


@dataclass(frozen=True)
class Raw:
    """Labels at the fixed width of the largest one.  Payload: varint largest label, packed labels, lowest bit first."""

    id: ClassVar[str] = "raw"
    dtype: ClassVar[str] = "uint32"
    most: ClassVar[int] = SYMBOLS - 1  # the largest label it takes

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """About n ⌈log₂ (largest + 1)⌉ / 8 bytes."""
        labels = checked_labels(x, context)
        largest = int(labels.max(initial=0))
        return varint.write([largest]) + bits.pack(labels, largest.bit_length())

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32."""
        reader = varint.Reader(payload)
        largest = reader.next(most=SYMBOLS - 1)
        labels = bits.unpack(reader.rest(), largest.bit_length(), context.layout.size)
        if labels.max(initial=0) != largest:
            raise DecodeError(f"raw: the largest label is {labels.max(initial=0)}, not {largest}")
        return labels


@dataclass(frozen=True)
class Members:
    """The most frequent label is silent; of every other one, the positions of its members.

    Payload: varint largest label, varint silent label, then for each other label 0 … largest in order a varint length
    and the positions codec's payload.
    """

    id: ClassVar[str] = "members"
    dtype: ClassVar[str] = "uint32"
    most: ClassVar[int] = SYMBOLS - 1  # the largest label it takes
    positions: Codec = field(default_factory=Gaps)

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """One mask a label that is not silent."""
        labels, bare = checked_labels(x, context), Context(context.layout)
        counts = np.bincount(labels, minlength=1)
        largest, silent = counts.size - 1, int(counts.argmax())
        out = [varint.write([largest, silent])]
        for label in (label for label in range(largest + 1) if label != silent):
            members = self.positions.encode((labels == label).astype(np.uint8), bare)
            out += [varint.write([len(members)]), members]
        return b"".join(out)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32; DecodeError when an entry is a member of two labels."""
        reader, bare = varint.Reader(payload), Context(context.layout)
        largest = reader.next(most=SYMBOLS - 1)
        silent = reader.next(most=largest)
        labels, taken = np.full(context.layout.size, silent, dtype=np.uint32), np.zeros(context.layout.size, dtype=bool)
        for label in (label for label in range(largest + 1) if label != silent):
            members = self.positions.decode(reader.take(reader.next()), bare).astype(bool)
            if (taken & members).any():
                raise DecodeError("members: an entry has two labels")
            taken |= members
            labels[members] = label
        reader.end()
        return labels
