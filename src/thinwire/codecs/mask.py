"""`mask`: a binary vector, range-coded with one static probability per class of what both ends know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs import rangecoder, trace, varint
from thinwire.codecs.base import Context, checked
from thinwire.codecs.classes import Keys, cheapest, gather
from thinwire.codecs.kernels import njit
from thinwire.errors import ConfigError, DecodeError


@njit(cache=True)
def _count(bits, index, table):  # type: ignore[no-untyped-def]
    """Adds to table[key, bit]; -> largest value seen among the bits."""
    largest = 0
    for i in range(bits.size):
        bit = bits[i]
        if bit > 1:
            return int(bit)
        table[index[i], bit] += 1
        largest = max(largest, int(bit))
    return largest


@dataclass(frozen=True)
class Mask:
    """A 0/1 vector at its conditional entropy: H(m | class) bits and a few bytes a class.

    Classes: the shared vote counts if the context holds any (FedPM: the counts just broadcast), else the tensors.
    Every class c sends kᶜ, its number of ones, and its entries are range-coded with P(1) = round(2¹⁶ kᶜ / nᶜ) / 2¹⁶;
    a class of all zeros or all ones costs nothing more. The writer folds neighbouring counts into fewer classes
    where the shorter table is worth it, and says so in the payload.

    Payload: varint number of classes, varint kᶜ of each class that has entries, range-coded bits in order.
    Differs from the paper (FedPM, ICLR 2023): it reports H₂(density) and codes nothing.
    """

    id: ClassVar[str] = "mask"
    dtype: ClassVar[str] = "uint8"

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Payload of (n,) uint8 zeros and ones."""
        bits, keys = checked(x, np.uint8, context), Keys.of(context)
        table = np.zeros((keys.number, 2), dtype=np.int64)
        if (largest := _count(bits, keys.index, table)) > 1:
            raise ConfigError("x", largest, "a mask of zeros and ones")
        bins, counts = cheapest(keys, table, _table_bits)
        header = varint.write([bins, *counts[counts.sum(axis=1) > 0, 1]])
        frequencies = _frequencies(counts[:, 1], counts.sum(axis=1))[keys.fold(bins)]
        return header + rangecoder.encode_bits(bits, keys.index, frequencies)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) uint8; the number of ones of every class must be as sent, else DecodeError."""
        keys, reader = Keys.of(context), varint.Reader(payload)
        fold = keys.fold(keys.check_bins(reader.next()))
        header = reader.position
        sizes = gather(fold, np.bincount(keys.index, minlength=keys.number)[:, None])[:, 0]
        ones = np.array([reader.next(most=int(size)) if size else 0 for size in sizes], dtype=np.int64)
        if ones.sum() > context.bound(context.layout.size):
            raise DecodeError(f"mask: {ones.sum()} ones, at most {context.most} expected")
        trace.cut("header", header)
        trace.cut("ones per class", reader.position - header)
        trace.cut("bits", len(payload) - reader.position)
        bits = rangecoder.decode_bits(reader.rest(), keys.index, _frequencies(ones, sizes)[fold])
        table = np.zeros((keys.number, 2), dtype=np.int64)
        _count(bits, keys.index, table)
        if (gather(fold, table)[:, 1] != ones).any():
            raise DecodeError("mask: the bits do not have the number of ones that the payload names")
        return bits


@njit(cache=True)
def _table_bits(counts):  # type: ignore[no-untyped-def]
    """Bits of the varints that say how many ones each class has: (classes, 2) counts."""
    bits = 0
    for row in range(counts.shape[0]):
        if counts[row, 0] or counts[row, 1]:
            bits += 8 * varint.length(counts[row, 1])
    return bits


def _frequencies(ones: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """P(1) in units of 2⁻¹⁶; 0 and 2¹⁶ exactly where a class is constant.  # (classes,) uint32."""
    rounded = (ones * rangecoder.WHOLE + sizes // 2) // np.maximum(sizes, 1)
    inner = np.clip(rounded, 1, rangecoder.WHOLE - 1)
    whole = np.where(ones == sizes, rangecoder.WHOLE, inner)
    return np.where(ones == 0, 0, whole).astype(np.uint32)
