"""Label coders: small whole numbers by Huffman's code, at a fixed width, as positions. (`votes` is range-coded.)"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import numpy as np
from bitarray import bitarray
from bitarray.util import canonical_decode, huffman_code, int2ba

from thinwire.codecs import bits, trace, varint
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.config import require
from thinwire.codecs.positions import Gaps, places
from thinwire.errors import ConfigError, DecodeError

SYMBOLS = 256
LONGEST = 31  # bits of a code word that canonical_decode can read


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
    byte first. With one label in all, no bits follow. A code longer than 31 bits, which takes millions of entries, is
    made anew from halved counts. Reference: Huffman 1952; canonical form: Schwartz, Kallick 1964.
    """

    id: ClassVar[str] = "huffman"
    dtype: ClassVar[str] = "uint32"
    most: ClassVar[int] = SYMBOLS - 1  # the largest label it takes

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Table and code bits."""
        labels = checked_labels(x, context)
        lengths, code = code_lengths(np.bincount(labels)), bitarray(endian="little")
        if np.count_nonzero(lengths) > 1:
            code.encode(_words(_in_order(lengths)), labels.astype(np.uint8).tobytes())
        return varint.write([lengths.size]) + lengths.tobytes() + code.tobytes()

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32; DecodeError unless the lengths are a full prefix code and the bits are just enough."""
        reader, size = varint.Reader(payload), context.layout.size
        lengths = np.frombuffer(reader.take(reader.next(most=context.bound(self.most) + 1)), dtype=np.uint8)
        present, code = _in_order(lengths), reader.rest()
        trace.cut("header", len(payload) - lengths.size - len(code))
        trace.cut("code lengths", lengths.size)
        trace.cut("code words", len(code))
        whole = {0: 0.0, 1: 0.5}.get(len(present), 1.0)  # a single label has a length of 1
        if lengths.max(initial=0) > LONGEST or sum(2.0**-length for length, _ in present) != whole:
            raise DecodeError("huffman: the code lengths are no prefix code")
        if lengths.size and not lengths[-1]:
            raise DecodeError("huffman: the largest label does not occur")
        if len(present) <= 1:
            if bool(size) != bool(present) or code:
                raise DecodeError("huffman: one label or none, but bits follow or entries are missing")
            return np.full(size, present[0][1] if present else 0, dtype=np.uint32)
        if 8 * len(code) > size * (len(present) - 1).bit_length() + 7:
            raise DecodeError(f"huffman: {len(code)} bytes, more than a fixed width takes for {len(present)} labels")
        return _decode(code, present, size)


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of every label's code word, 0 where it does not occur, at most LONGEST.  # (labels,) -> (labels,) uint8"""
    present = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    lengths = np.zeros(counts.size, dtype=np.uint8)
    if len(present) == 1:
        lengths[list(present)] = 1
    elif present:
        words = huffman_code(Counter(present))
        if max(map(len, words.values())) > LONGEST:
            return code_lengths((counts + 1) // 2)
        lengths[list(words)] = [len(word) for word in words.values()]
    return lengths


def _in_order(lengths: np.ndarray) -> list[tuple[int, int]]:
    """(length, label) of the labels that occur, in canonical order."""
    return sorted((length, label) for label, length in enumerate(lengths.tolist()) if length)


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
        largest = reader.next(most=context.bound(self.most))
        trace.cut("header", reader.position)
        trace.cut("labels", len(payload) - reader.position)
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

    def __post_init__(self) -> None:
        require("members.positions", self.positions, "uint8")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """One mask a label that is not silent."""
        labels, bare = checked_labels(x, context), Context(context.layout)
        largest, silent = _largest_and_silent(labels)
        out = [varint.write([largest, silent])]
        for label in (label for label in range(largest + 1) if label != silent):
            members = self.positions.encode((labels == label).astype(np.uint8), bare)
            out += [varint.write([len(members)]), members]
        return b"".join(out)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32; DecodeError when an entry has two labels, or another label should be the largest or silent."""
        reader, bare = varint.Reader(payload), Context(context.layout)
        largest = reader.next(most=context.bound(self.most))
        silent = reader.next(most=largest)
        trace.cut("header", reader.position)
        labels, taken = np.full(context.layout.size, silent, dtype=np.uint32), np.zeros(context.layout.size, dtype=bool)
        for label in (label for label in range(largest + 1) if label != silent):
            members = trace.nested("positions", self.positions, reader.sized(), bare, places)
            if taken[members].any():
                raise DecodeError("members: an entry has two labels")
            taken[members] = True
            labels[members] = label
        reader.end()
        if (largest, silent) != _largest_and_silent(labels):
            raise DecodeError("members: the largest or the silent label is not the one that the payload names")
        return labels


def _largest_and_silent(labels: np.ndarray) -> tuple[int, int]:
    """The largest label and the most frequent one, the lower on a tie; 0 and 0 without entries."""
    counts = np.bincount(labels, minlength=1)
    return counts.size - 1, int(counts.argmax())
