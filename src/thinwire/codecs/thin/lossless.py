"""Every bit of every float32: sign, exponent and the first bits of the fraction are modelled, the rest is as it is."""

# mypy: disable-error-code="no-untyped-def, operator"
from __future__ import annotations

import numpy as np

from thinwire.codecs.base import Context
from thinwire.codecs.kernels import njit
from thinwire.codecs.thin.model import code_bit, learn, mix
from thinwire.codecs.thin.stream import Stream
from thinwire.codecs.thin.tables import HALF

FRACTION, MODELLED = 23, 3  # bits of a fraction, and how many of them are modelled
_TREE = 256
_FIRST = (0, _TREE * 64, 2 * _TREE * 64)  # exponents by the one before, by the shared one, by both
_SIGNS = 3 * _TREE * 64
_ZEROS = _SIGNS + 64
_UPPER = _ZEROS + 8
CONTEXTS = _UPPER + 8 * 32
SETS = 4


def encode(x: np.ndarray, context: Context) -> bytes:
    """The stream of an (n,) float32 array."""
    stream, numbers = Stream(), x.view(np.uint32).copy()
    _coded(stream, numbers, context)
    return stream.close()


def decode(payload: bytes, context: Context) -> np.ndarray:
    """(n,) float32."""
    stream, numbers = Stream(payload), np.zeros(context.layout.size, np.uint32)
    _coded(stream, numbers, context)
    stream.close()
    return numbers.view(np.float32)


def _coded(stream: Stream, numbers: np.ndarray, context: Context) -> None:
    shared = np.zeros(0, np.uint32) if context.shared is None else context.shared.astype(np.float32).view(np.uint32)
    probabilities, counts = np.full(CONTEXTS, HALF, np.int32), np.zeros(CONTEXTS, np.uint8)
    weights = np.full((SETS, 3), 26214, np.int32)
    start = 0
    while start < numbers.size:
        stream.make_room()
        start = _code(
            stream.reading, start, numbers, shared, probabilities, counts, weights, stream.state, stream.words
        )


@njit(cache=True)
def _code(decoding, start, numbers, shared, probabilities, counts, weights, state, words):
    for o in range(start, numbers.size):
        if not decoding and np.int64(state[2]) + 80 > words.size:
            return o
        number = np.int64(numbers[o])
        before = np.int64(numbers[o - 1]) if o > 0 else 0
        same = np.int64(shared[o]) if shared.size else 0
        last, other = (before >> 23) & 255, (same >> 23) & 255
        a, b = min(max(last - 80, 0), 63), min(max(other - 80, 0), 63)
        both = min(max(a // 4, 0), 15) // 2 * 8 + min(max(b // 4, 0), 15) // 2
        node, exponent = np.int64(1), (number >> 23) & 255
        for bit in range(7, -1, -1):
            contexts = (
                np.uint64(a * _TREE + node),
                np.uint64(_FIRST[1] + b * _TREE + node),
                np.uint64(_FIRST[2] + both * _TREE + node),
            )
            p = mix(probabilities, weights, 0, contexts)
            y = code_bit(decoding, (exponent >> bit) & 1, p, state, words)
            learn(probabilities, counts, weights, 0, contexts, p, y)
            node = node << 1 | y
        exponent = node & 255
        signs = (before >> 31) * 2 + (same >> 31)
        contexts = (
            np.uint64(_SIGNS + signs),
            np.uint64(_SIGNS + 4 + (same >> 31) * 16 + min(b // 4, 15)),
            np.uint64(_SIGNS + 40 + (before >> 31)),
        )
        p = mix(probabilities, weights, 1, contexts)
        sign = code_bit(decoding, number >> 31, p, state, words)
        learn(probabilities, counts, weights, 1, contexts, p, sign)
        fraction = number & ((1 << FRACTION) - 1)
        kind = 2 * np.int64(exponent == 0) + np.int64((before & ((1 << FRACTION) - 1)) == 0)
        alone = np.uint64(_ZEROS + kind)
        p = np.int64(min(max(probabilities[alone], 64), 65472))
        plain = code_bit(decoding, np.int64(fraction != 0), p, state, words)
        learn(probabilities, counts, weights, 3, (alone,), p, plain)
        if plain:
            node = np.int64(1)
            for k in range(MODELLED):
                alone = np.uint64(_UPPER + min(exponent >> 3, 31) * 8 + node)
                p = np.int64(min(max(probabilities[alone], 64), 65472))
                y = code_bit(decoding, (fraction >> (FRACTION - 1 - k)) & 1, p, state, words)
                learn(probabilities, counts, weights, 3, (alone,), p, y)
                node = node << 1 | y
            value = node & ((1 << MODELLED) - 1)
            for k in range(FRACTION - MODELLED - 1, -1, -1):
                value = value << 1 | code_bit(decoding, (fraction >> k) & 1, HALF, state, words)
            fraction = value
        else:
            fraction = np.int64(0)
        numbers[o] = np.uint32(sign << 31 | exponent << 23 | fraction)
    return numbers.size
