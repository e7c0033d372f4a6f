"""Static range coder: integers only, so every machine writes and reads the same bytes. Compiled once by numba.

State: a 64-bit interval [low, low + range). A symbol of class c with frequency f of 2¹⁶ takes the part
(range >> 16) · f; when range falls under 2³², the top 32 bits of low are final and leave as one big-endian word.
A carry runs back into the words already written. The end is the number of [low, low + range) with the most trailing
zero bits: trailing zero bytes are cut, and the reader goes on with zeros. A symbol whose frequency is the whole 2¹⁶
costs nothing. Reference: G. N. N. Martin, "Range encoding", 1979; the loss against entropy is under 2⁻¹⁵ a symbol.
"""

from __future__ import annotations

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.errors import DecodeError

PRECISION = 16
WHOLE = 1 << PRECISION

_SHIFT = np.uint64(PRECISION)
_WORD = np.uint64(32)
_RENORMALISE = np.uint64(1 << 32)
_FULL = np.uint64(2**64 - 1)
_LOW_WORD = np.uint64(2**32 - 1)


@njit(cache=True)
def carry(words: np.ndarray, position: int) -> None:
    """Add one to the number that the words before `position` make."""
    position -= 1
    while words[position] == np.uint32(0xFFFFFFFF):
        words[position] = np.uint32(0)
        position -= 1
    words[position] += np.uint32(1)


@njit(cache=True)
def _encode_bits(bits, index, frequencies, words):  # type: ignore[no-untyped-def]
    low, width, position = np.uint64(0), _FULL, 0
    for i in range(bits.size):
        frequency = np.uint64(frequencies[index[i]])
        if frequency == 0 or frequency == np.uint64(WHOLE):
            continue
        part = (width >> _SHIFT) * frequency
        if bits[i]:
            width = part
        else:
            before = low
            low += part
            width -= part
            if low < before:
                carry(words, position)
        if width < _RENORMALISE:
            words[position] = np.uint32(low >> _WORD)
            position += 1
            low <<= _WORD
            width <<= _WORD
    return position, low, width


@njit(cache=True)
def _decode_bits(words, index, frequencies, bits):  # type: ignore[no-untyped-def]
    width, position = _FULL, 2
    code = (np.uint64(words[0]) << _WORD) | np.uint64(words[1])
    for i in range(bits.size):
        frequency = np.uint64(frequencies[index[i]])
        if frequency == 0 or frequency == np.uint64(WHOLE):
            bits[i] = frequency != 0
            continue
        part = (width >> _SHIFT) * frequency
        if code < part:
            bits[i] = 1
            width = part
        else:
            bits[i] = 0
            code -= part
            width -= part
        if width < _RENORMALISE:
            word = np.uint64(words[position]) if position < words.size else np.uint64(0)
            code = (code << _WORD) | word
            width <<= _WORD
            position += 1
    return position, code, width


@njit(cache=True)
def _encode_symbols(symbols, index, cumulative, words):  # type: ignore[no-untyped-def]
    low, width, position = np.uint64(0), _FULL, 0
    for i in range(symbols.size):
        row, symbol = index[i], symbols[i]
        start = np.uint64(cumulative[row, symbol])
        frequency = np.uint64(cumulative[row, symbol + 1]) - start
        if frequency == np.uint64(WHOLE):
            continue
        unit = width >> _SHIFT
        before = low
        low += unit * start
        width = unit * frequency
        if low < before:
            carry(words, position)
        if width < _RENORMALISE:
            words[position] = np.uint32(low >> _WORD)
            position += 1
            low <<= _WORD
            width <<= _WORD
    return position, low, width


@njit(cache=True)
def _decode_symbols(words, index, cumulative, symbols):  # type: ignore[no-untyped-def]
    width, position, last = _FULL, 2, cumulative.shape[1] - 1
    code = (np.uint64(words[0]) << _WORD) | np.uint64(words[1])
    for i in range(symbols.size):
        row = index[i]
        unit = width >> _SHIFT
        target = min(code // unit, np.uint64(WHOLE - 1))
        first, end = 0, last
        while end - first > 1:
            middle = (first + end) >> 1
            if np.uint64(cumulative[row, middle]) <= target:
                first = middle
            else:
                end = middle
        symbols[i] = first
        start = np.uint64(cumulative[row, first])
        frequency = np.uint64(cumulative[row, first + 1]) - start
        if frequency == np.uint64(WHOLE):
            continue
        code -= unit * start
        width = unit * frequency
        if width < _RENORMALISE:
            word = np.uint64(words[position]) if position < words.size else np.uint64(0)
            code = (code << _WORD) | word
            width <<= _WORD
            position += 1
    return position, code, width


def encode_bits(bits: np.ndarray, index: np.ndarray, frequencies: np.ndarray) -> bytes:
    """Bits (n,) uint8 where P(bit i = 1) = frequencies[index[i]] / 2¹⁶."""
    words = _room(bits.size)
    return seal(words, *_encode_bits(bits, index, frequencies, words))


def decode_bits(payload: bytes, index: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Inverse of `encode_bits`: (n,) uint8; DecodeError on a payload that the writer would not make of them."""
    bits, words = np.empty(index.size, dtype=np.uint8), open_words(payload)
    check_end(payload, words, *_decode_bits(words, index, frequencies, bits))
    return bits


def encode_symbols(symbols: np.ndarray, index: np.ndarray, cumulative: np.ndarray) -> bytes:
    """Symbols (n,) by their tables: rows of `cumulative` (classes, symbols + 1), which run from 0 to 2¹⁶."""
    words = _room(symbols.size)
    return seal(words, *_encode_symbols(symbols, index, cumulative, words))


def decode_symbols(payload: bytes, index: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
    """Inverse of `encode_symbols`: (n,) uint32; DecodeError on a payload that the writer would not make of them."""
    symbols, words = np.empty(index.size, dtype=np.uint32), open_words(payload)
    check_end(payload, words, *_decode_symbols(words, index, cumulative, symbols))
    return symbols


def _room(symbols: int) -> np.ndarray:
    """Zeroed words for the longest message: a symbol moves out at most one. Pages never written cost no memory."""
    return np.zeros(symbols + 1, dtype=np.uint32)


def seal(words: np.ndarray, position: int, low: int, width: int) -> bytes:
    """The final words, then the number of [low, low + width) with the most trailing zero bits, its zero bytes cut."""
    low, end = int(low), int(low) + int(width)
    for shift in range(64, -1, -1):
        value = -(-low >> shift) << shift
        if value < end:
            break
    if value >> 64:
        carry(words, position)
        value -= 1 << 64
    written = words[:position].astype(">u4").tobytes()
    return (written + value.to_bytes(8, "big")).rstrip(b"\0")


def open_words(payload: bytes) -> np.ndarray:
    """The payload as words, padded with zero bytes to two words at least."""
    if payload and payload[-1] == 0:
        raise DecodeError("range coder: ends in a zero byte, which the writer cuts off")
    padded = payload + bytes(max(8, -(-len(payload) // 4) * 4) - len(payload))
    return np.frombuffer(padded, dtype=">u4").astype(np.uint32)


def check_end(payload: bytes, words: np.ndarray, position: int, code: int, width: int) -> None:
    """The message's last 64 bits stand `code` above low: no number of the interval may have more trailing zeros."""
    if len(payload) > 4 * position:
        raise DecodeError(f"range coder: {len(payload) - 4 * position} bytes are left over")
    high, last = (int(word) for word in [*words[position - 2 : position], 0, 0][:2])
    end = high << 32 | last
    step = end & -end or 1 << 64  # the neighbours that have more trailing zeros are one step away
    if int(code) >= min(step, int(width)) or int(code) + step < int(width):
        raise DecodeError("range coder: does not end in the number that the writer chooses")


def normalise(histogram: np.ndarray) -> np.ndarray:
    """Counts (symbols,) to cumulative frequencies (symbols + 1,) that end at 2¹⁶; integer arithmetic only.

    fₛ = max(1, hₛ · 2¹⁶ // Σh) for counted symbols, else 0; the largest (first on a tie) takes up the difference.
    At most 256 symbols, so that it stays above 0. Without counts: the first symbol has everything.
    """
    histogram = histogram.astype(np.int64)
    total = int(histogram.sum())
    frequencies = np.maximum(histogram * WHOLE // max(total, 1), histogram > 0)
    frequencies[int(np.argmax(histogram))] += WHOLE - int(frequencies.sum())
    return np.concatenate([[0], np.cumsum(frequencies)]).astype(np.uint32)
