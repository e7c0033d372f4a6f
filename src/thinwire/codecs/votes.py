"""`votes`: whole numbers 0 … K, range-coded with one static table per class of the previous counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs import bits, rangecoder, trace, varint
from thinwire.codecs.base import Context, checked
from thinwire.codecs.classes import MAX_COUNT, Keys, cheapest, gather
from thinwire.codecs.kernels import njit
from thinwire.errors import ConfigError, DecodeError

SYMBOLS = 256
MOST_CLASSES = 256


def _low_bits(bound: int) -> int:
    """How many low bits of 1 … K − 1 go raw, so that 0, K and the rest fit 256 symbols."""
    return max(0, (max(bound - 2, 0) // (SYMBOLS - 2)).bit_length())


@dataclass(frozen=True)
class Votes:
    """Counts 0 … K at their conditional entropy given the previous counts (the context's shared ones, if any).

    Up to K = 255 a count is its own symbol. Above, 0 and K keep symbols of their own (a settled federation lives
    there) and 1 … K − 1 is cut into equal runs of 2ˢ; the s low bits follow raw. Every class sends its histogram:
    first symbol, span, counts of all symbols of the span but the last, which the class size implies.

    Payload: varint K, varint number of classes, histograms of the classes that have entries, varint length of the
    range-coded symbols, these, then the low bits, lowest first, filled up to a byte.
    """

    id: ClassVar[str] = "votes"
    dtype: ClassVar[str] = "uint32"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Payload of (n,) uint32 counts below 2²⁴; K is the largest of them."""
        x, keys = checked(x, np.uint32, context), Keys.of(context, MOST_CLASSES)
        bound = int(x.max(initial=0))
        if bound >= MAX_COUNT:
            raise ConfigError("x", bound, f"counts below {MAX_COUNT}")
        symbols, low = _split(x, bound)
        joint = keys.index.astype(np.int64) * SYMBOLS + symbols
        table = np.bincount(joint, minlength=keys.number * SYMBOLS).reshape(keys.number, SYMBOLS)
        bins, counts = cheapest(keys, table, _table_bits)
        cumulative = np.stack([rangecoder.normalise(row) for row in counts])
        index = keys.fold(bins).astype(np.uint32)[keys.index]
        coded = rangecoder.encode_symbols(symbols, index, cumulative)
        return varint.write([bound, bins]) + _histograms(counts) + varint.write([len(coded)]) + coded + low

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint32; every class must have the histogram that the payload names, else DecodeError."""
        keys, reader = Keys.of(context, MOST_CLASSES), varint.Reader(payload)
        bound = reader.next(most=context.bound(MAX_COUNT - 1))
        fold = keys.fold(keys.check_bins(reader.next()))
        header = reader.position
        sizes = gather(fold, np.bincount(keys.index, minlength=keys.number)[:, None])[:, 0]
        counts = np.stack([_histogram(reader, int(size)) for size in sizes])
        table = reader.position
        length, rest = reader.next(), reader.rest()
        if length > len(rest):
            raise DecodeError(f"votes: {len(rest)} bytes left, {length} of range-coded symbols expected")
        coded, low = rest[:length], rest[length:]
        trace.cut("header", header + reader.position - table)
        trace.cut("histograms", table - header)
        trace.cut("symbols", length)
        trace.cut("low bits", len(low))
        cumulative = np.stack([rangecoder.normalise(row) for row in counts])
        index = fold.astype(np.uint32)[keys.index]
        symbols = rangecoder.decode_symbols(coded, index, cumulative)
        found = np.bincount(index.astype(np.int64) * SYMBOLS + symbols, minlength=counts.size)
        if (found != counts.ravel()).any():
            raise DecodeError("votes: the symbols do not have the histogram that the payload names")
        return _join(symbols, low, bound)


def _split(x: np.ndarray, bound: int) -> tuple[np.ndarray, bytes]:
    """Symbols (n,) uint32 and the packed low bits of the counts 1 … K − 1."""
    if not (shift := _low_bits(bound)):
        return x, b""
    inner = (x > 0) & (x < bound)
    symbols = np.where(inner, ((x - 1) >> np.uint32(shift)) + 1, np.where(x == 0, 0, SYMBOLS - 1)).astype(np.uint32)
    return symbols, bits.pack((x[inner] - 1) & np.uint32((1 << shift) - 1), shift)


def _join(symbols: np.ndarray, packed: bytes, bound: int) -> np.ndarray:
    """Inverse of `_split`; DecodeError when K is not the largest count or the low bits have another length."""
    shift = _low_bits(bound)
    inner = (symbols > 0) & (symbols < (SYMBOLS - 1 if shift else bound))
    expected = (int(inner.sum()) * shift + 7) // 8 if shift else 0
    if len(packed) != expected:
        raise DecodeError(f"votes: {len(packed)} bytes of low bits, expected {expected}")
    counts = symbols
    if shift:
        counts = np.where(symbols == 0, 0, bound).astype(np.uint32)
        counts[inner] = ((symbols[inner] - 1) << np.uint32(shift)) + bits.unpack(packed, shift, int(inner.sum())) + 1
    if counts.max(initial=0) != bound:
        raise DecodeError(f"votes: the largest count is {counts.max(initial=0)}, not {bound}")
    return counts


@njit(cache=True)
def _table_bits(counts):  # type: ignore[no-untyped-def]
    """Bits of `_histograms`."""
    total = 0
    for row in range(counts.shape[0]):
        present = np.flatnonzero(counts[row])
        if present.size:
            first, last = present[0], present[-1]
            total += 8 * (varint.length(first) + varint.length(last - first))
            for symbol in range(first, last):
                total += 8 * varint.length(counts[row, symbol])
    return total


def _histograms(counts: np.ndarray) -> bytes:
    """The histograms of all classes that have entries: (classes, symbols) counts."""
    out = []
    for row in counts[counts.sum(axis=1) > 0]:
        present = np.flatnonzero(row)
        first, last = int(present[0]), int(present[-1])
        out.append(varint.write([first, last - first, *row[first:last]]))
    return b"".join(out)


def _histogram(reader: varint.Reader, size: int) -> np.ndarray:
    """One class's counts (symbols,), taken off the payload; all zero for a class without entries."""
    row = np.zeros(SYMBOLS, dtype=np.int64)
    if size:
        first = reader.next(most=SYMBOLS - 1)
        last = first + reader.next(most=SYMBOLS - 1 - first)
        for symbol in range(first, last):
            row[symbol] = reader.next(most=size)
            size -= int(row[symbol])
        row[last] = size
        if not (row[first] and row[last]):
            raise DecodeError("votes: a histogram starts or ends with a count of 0")
    return row
