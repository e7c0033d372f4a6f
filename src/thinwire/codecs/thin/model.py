"""The adaptive model: bits of levels, each predicted by several contexts whose opinions are mixed, in integers alone.

A plane is a matrix of levels, coded row by row. A level is a bit "not zero", its sign, and one bit "larger" for each
step up to ESCAPE; what is left is an Elias-gamma code. For every bit each context i has a probability pᵢ; the mixed one
is p = squash(Σ wᵢ · stretch(pᵢ)); after the bit y, pᵢ moves towards y by 1/(n + 3/2) after n bits, not under 1/LIMIT,
and wᵢ by a multiple of (y − p) · stretch(pᵢ). Contexts: signed and unsigned levels before it in the row, in the
kernel and in the row above; running means of row and column; classes of the array that both ends share, and its sign.
Reference: M. Mahoney, "Adaptive weighing of context models for lossless data compression", 2005 (logistic mixing).
"""

# mypy: disable-error-code="no-untyped-def, operator"
from __future__ import annotations

import numpy as np

from thinwire.codecs.kernels import njit
from thinwire.codecs.rangecoder import carry
from thinwire.codecs.thin.tables import COSTS, HALF, LARGEST, RATES, SQUASH, STRETCH

ZERO_SETS, SIGN_SET, SIZE_SETS = 16, 16, 17  # of mixing weights: by neighbourhood; one; by step of the size
SETS = SIZE_SETS + 4
INPUTS = 6
LIMIT = 100  # bits after which a context forgets
CARRIED = 6  # bits that a context counts for when the next plane begins
ESCAPE = 14  # sizes above take an Elias-gamma code
LARGEST_LEVEL = 1 << 22
UNLIMITED = 1 << 62  # bits of work

# Where each context's probabilities begin.
_Z = (0, 256, 512, 1536, 1792, 2816)
_S = (3072, 3200, 3264, 3360)
_M = (3440, 3440 + ESCAPE * 256, 3440 + 2 * ESCAPE * 256)
CONTEXTS = _M[2] + ESCAPE * 16
_MIX_RATE = 14
_FIRST_WEIGHT = 19661  # 0.3 of 2¹⁶


class Model:
    """What both ends have learnt so far: probabilities, how often each was used, weights of the mixer."""

    def __init__(self) -> None:
        self.probabilities = np.full(CONTEXTS, HALF, dtype=np.int32)
        self.probabilities[: _S[0]] = HALF >> 2
        self.counts = np.zeros(CONTEXTS, dtype=np.uint8)
        self.weights = np.full((SETS, INPUTS), _FIRST_WEIGHT, dtype=np.int32)

    def copy(self) -> Model:
        """An independent one that has learnt the same."""
        other = Model.__new__(Model)
        other.probabilities, other.counts = self.probabilities.copy(), self.counts.copy()
        other.weights = self.weights.copy()
        return other

    def next_plane(self) -> None:
        """Keep what was learnt as a first guess only."""
        np.minimum(self.counts, CARRIED, out=self.counts)


def _class_table() -> np.ndarray:
    """0, 1, 2, 3, then two classes an octave, at most 15.  # (256,) uint8."""
    octaves = [max(value.bit_length() - 2, 0) for value in range(256)]
    return np.array([2 * k + (value >> k) for value, k in enumerate(octaves)], np.uint8)


_CLASS = _class_table()


@njit(cache=True, forceinline=True)
def _class(value):
    return np.int64(_CLASS[np.uint64(min(value, 255))])


@njit(cache=True, forceinline=True)
def mix(probabilities, weights, chosen, contexts):
    """P(bit = 1) of 2¹⁶. contexts: a tuple of places (unsigned, which numba indexes faster); chosen: their weights."""
    total = np.int64(0)
    for k, at in enumerate(contexts):
        total += np.int64(weights[chosen, np.uint64(k)]) * STRETCH[np.uint64(probabilities[at] >> 4)]
    return np.int64(SQUASH[np.uint64(min(max(total >> 16, -LARGEST), LARGEST) + LARGEST)])


@njit(cache=True, forceinline=True)
def learn(probabilities, counts, weights, chosen, contexts, p, bit):
    """Move probabilities and weights towards the bit that was given p."""
    error = ((np.int64(bit) << 16) - p) * _MIX_RATE
    target = np.int64(65535) if bit else np.int64(0)
    for k, at in enumerate(contexts):
        before, seen = np.int64(probabilities[at]), counts[at]
        weights[chosen, np.uint64(k)] += (np.int64(STRETCH[np.uint64(before >> 4)]) * error + (1 << 17)) >> 18
        probabilities[at] = before + (((target - before) * RATES[np.uint64(seen)]) >> 16)
        counts[at] = seen + (seen < LIMIT)


@njit(cache=True, forceinline=True)
def _mix_zero(probabilities, weights, chosen, contexts, sets):
    if sets == 4:
        return mix(probabilities, weights, chosen, contexts[:4])
    if sets == 2:
        return mix(probabilities, weights, chosen, contexts[:2])
    return mix(probabilities, weights, chosen, contexts)


@njit(cache=True, forceinline=True)
def _learn_zero(probabilities, counts, weights, chosen, contexts, sets, p, bit):
    if sets == 4:
        learn(probabilities, counts, weights, chosen, contexts[:4], p, bit)
    elif sets == 2:
        learn(probabilities, counts, weights, chosen, contexts[:2], p, bit)
    else:
        learn(probabilities, counts, weights, chosen, contexts, p, bit)


@njit(cache=True, forceinline=True)
def _clip(value, most):
    return min(max(value, -most), most)


@njit(cache=True, forceinline=True)
def _sign(value):
    return np.int64(value > 0) - np.int64(value < 0) + 1


@njit(cache=True, forceinline=True)
def _size_at(levels, at):
    return abs(np.int64(levels[np.uint64(at)]))


@njit(cache=True, forceinline=True)
def _look_around(levels, o, j, cols, kernel_row, kernel, left, left2, column, row, own, line):
    """Contexts of the bit "not zero" of the level at o, column j, after its neighbourhood; those of its size."""
    up = up_right = up_left = above = channel = np.int64(0)
    if o >= cols:
        up = _size_at(levels, o - cols)
        if j + 1 < cols:
            up_right = _size_at(levels, o - cols + 1)
        if j > 0:
            up_left = _size_at(levels, o - cols - 1)
    if j >= kernel_row:
        above = _size_at(levels, o - kernel_row)
    if j >= kernel:
        channel = _size_at(levels, o - kernel)
    a1, a2 = abs(left), abs(left2)
    around = _class(4 * a1 + 2 * a2 + 2 * up + up_right + up_left + 2 * above + 2 * channel)
    mean, means = _class(column >> 4), _class(row >> 4)
    few = min(a1, 3) * 4 + min(a2, 3)
    zero = (
        np.uint64(_Z[0] + around * 16 + own),
        np.uint64(_Z[1] + mean * 16 + means),
        np.uint64(_Z[2] + (few * 4 + min(up, 3)) * 16 + min(above, 3) * 4 + min(channel, 3)),
        np.uint64(_Z[3] + line * 16 + around),
        np.uint64(_Z[4] + (mean * 16 + own) * 4 + min(around, 3)),
        np.uint64(_Z[5] + own * 16 + line),
    )
    return np.uint64(around), zero, (around * 16 + own, mean * 16 + line, few)


@njit(cache=True, forceinline=True)
def _look_signs(levels, o, j, cols, kernel_row, kernel, left, left2, own, shared_sign):
    """Contexts of the sign of the level at o, column j."""
    up = np.int64(levels[np.uint64(o - cols)]) if o >= cols else 0
    up2 = np.int64(levels[np.uint64(o - 2 * cols)]) if o >= 2 * cols else 0
    above = np.int64(levels[np.uint64(o - kernel_row)]) if j >= kernel_row else 0
    channel = np.int64(levels[np.uint64(o - kernel)]) if j >= kernel else 0
    s1, s2 = _sign(left), _sign(left2)
    return (
        np.uint64(_S[0] + ((s1 * 3 + s2) * 3 + _sign(above)) * 3 + _sign(channel)),
        np.uint64(_S[1] + shared_sign * 16 + own),
        np.uint64(_S[2] + ((s1 * 3 + _sign(up)) * 3 + _sign(up2)) * 3 + shared_sign),
        np.uint64(_S[3] + ((_clip(left, 2) + 2) * 5 + _clip(left2, 2) + 2) * 3 + shared_sign),
    )


@njit(cache=True, forceinline=True)
def _look_larger(near, size):
    """Weights and contexts of the bit "larger than size"."""
    at = min(size, ESCAPE) - 1
    contexts = (
        np.uint64(_M[0] + at * 256 + near[0]),
        np.uint64(_M[1] + at * 256 + near[1]),
        np.uint64(_M[2] + at * 16 + near[2]),
    )
    return np.uint64(SIZE_SETS + min(size, 4) - 1), contexts


@njit(cache=True, forceinline=True)
def _remember(size, column, row):
    """Running means of the sizes in a column and in a row, quick to rise, slow to fall."""
    value = min(size * 256, 4096)
    column += (value - column) >> 2 if column < value else -((column - value + 3) >> 3)
    row += (value - row) >> 3 if row < value else -((row - value + 15) >> 4)
    return column, row


@njit(cache=True, forceinline=True)
def of_size(size):
    """Bits that say a level of this size: 1 for 0; else one more, the sign, one a step, the Elias-gamma code."""
    if size <= ESCAPE:
        return 2 + size if size else np.int64(1)
    bits, rest = np.int64(2 + ESCAPE + 1), size - ESCAPE
    while rest > 1:
        bits, rest = bits + 2, rest >> 1
    return bits


@njit(cache=True, forceinline=True)
def _cost(p, bit):
    return COSTS[np.uint64((p if bit else 65536 - p) >> 4)]


@njit(cache=True)
def choose(
    x,
    step,
    cols,
    kernel_row,
    kernel,
    classes,
    lines,
    signs,
    price,
    sets,
    levels,
    columns,
    probabilities,
    counts,
    weights,
):
    """Rate-distortion optimised levels of a plane; returns the bits that they will take.

    Each entry takes the level with the least (x/step − level)² + price · bits among the nearest, the one below and 0.
    """
    bits, row, left, left2, j = 0.0, np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    inverse = 1.0 / step
    for o in range(x.size):
        here, at_column = np.uint64(o), np.uint64(j)
        own, line, column = np.int64(classes[here]), np.int64(lines[here]), np.int64(columns[at_column])
        around, zero, near = _look_around(levels, o, j, cols, kernel_row, kernel, left, left2, column, row, own, line)
        p = _mix_zero(probabilities, weights, around, zero, sets)
        scaled = x[here] * inverse
        negative, size = scaled < 0, abs(scaled)
        nearest = np.int64(min(size + 0.5, LARGEST_LEVEL))
        level = np.int64(0)
        if nearest > 0:
            sign = _look_signs(levels, o, j, cols, kernel_row, kernel, left, left2, own, np.int64(signs[here]))
            q = mix(probabilities, weights, SIGN_SET, sign)
            best = size * size + price * _cost(p, 0)
            cost = _cost(p, 1) + _cost(q, negative)
            for k in range(1, min(nearest, ESCAPE) + 1):
                chosen, larger = _look_larger(near, k)
                r = mix(probabilities, weights, chosen, larger)
                if k >= nearest - 1:
                    off = size - (k - 0.06)
                    total = off * off + price * (cost + _cost(r, 0))
                    if total < best:
                        best, level = total, np.int64(k)
                cost += _cost(r, 1)
            if nearest > ESCAPE:
                level = nearest
        _learn_zero(probabilities, counts, weights, around, zero, sets, p, level > 0)
        bits += _cost(p, level > 0)
        if level > 0:
            bits += _cost(q, negative)
            learn(probabilities, counts, weights, SIGN_SET, sign, q, negative)
            for k in range(1, min(level, ESCAPE) + 1):
                chosen, larger = _look_larger(near, k)
                r = mix(probabilities, weights, chosen, larger)
                bits += _cost(r, level > k)
                learn(probabilities, counts, weights, chosen, larger, r, level > k)
            if level > ESCAPE:
                bits += 2.0 * np.floor(np.log2(level - ESCAPE)) + 1.0
        left2, left = left, -level if negative else level
        levels[here] = left
        columns[at_column], row = _remember(level, column, row)
        j += 1
        if j == cols:
            row, left, left2, j = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    return bits


@njit(cache=True, forceinline=True)
def code_bit(decoding, bit, p, state, words):
    """One bit with P(1) = p of 2¹⁶, written or read. state: low (of a reader: the code less low), width, position."""
    part = (state[1] >> np.uint64(16)) * np.uint64(p)
    if decoding:
        bit = np.int64(state[0] < part)
        if bit:
            state[1] = part
        else:
            state[0] -= part
            state[1] -= part
    elif bit:
        state[1] = part
    else:
        before = state[0]
        state[0] += part
        state[1] -= part
        if state[0] < before:
            carry(words, np.int64(state[2]))
    if state[1] < np.uint64(1 << 32):
        position = np.int64(state[2])
        if decoding:
            word = np.uint64(words[position]) if position < words.size else np.uint64(0)
            state[0] = (state[0] << np.uint64(32)) | word
        else:
            words[position] = np.uint32(state[0] >> np.uint64(32))
            state[0] <<= np.uint64(32)
        state[2] = np.uint64(position + 1)
        state[1] <<= np.uint64(32)
    return bit


@njit(cache=True)
def code_gamma(decoding, value, most, state, words):
    """A whole number from 1 on in Elias' gamma code, at most 2^most − 1."""
    length = np.int64(0)
    if not decoding:
        while value >> (length + 1):
            length += 1
    read = np.int64(0)
    while read < most - 1 and code_bit(decoding, np.int64(read < length), HALF, state, words):
        read += 1
    result = np.int64(1)
    for k in range(read - 1, -1, -1):
        result = (result << 1) | code_bit(decoding, (value >> k) & 1, HALF, state, words)
    return result


@njit(cache=True)
def code_plane(
    decoding,
    start,
    cols,
    kernel_row,
    kernel,
    classes,
    lines,
    signs,
    sets,
    levels,
    columns,
    left_over,
    probabilities,
    counts,
    weights,
    state,
    words,
):
    """Write a plane's levels, or read them, from entry `start` on.

    A writer stops early, there, when out of words. left_over: the running mean of its row; of a reader, the bits that
    the levels may still take (see `work`): below 0, it stops and returns 0.
    """
    row, work, j = np.int64(left_over[0]), np.int64(left_over[1]), np.int64(start % cols)
    left = np.int64(levels[start - 1]) if j > 0 else np.int64(0)
    left2 = np.int64(levels[start - 2]) if j > 1 else np.int64(0)
    for o in range(start, levels.size):
        if not decoding and np.int64(state[2]) + 80 > words.size:
            left_over[0] = row
            return o
        here, at_column = np.uint64(o), np.uint64(j)
        own, line, column = np.int64(classes[here]), np.int64(lines[here]), np.int64(columns[at_column])
        around, zero, near = _look_around(levels, o, j, cols, kernel_row, kernel, left, left2, column, row, own, line)
        p = _mix_zero(probabilities, weights, around, zero, sets)
        level = np.int64(0) if decoding else np.int64(levels[here])
        size = abs(level)
        bit = code_bit(decoding, np.int64(size > 0), p, state, words)
        _learn_zero(probabilities, counts, weights, around, zero, sets, p, bit)
        if bit:
            sign = _look_signs(levels, o, j, cols, kernel_row, kernel, left, left2, own, np.int64(signs[here]))
            q = mix(probabilities, weights, SIGN_SET, sign)
            negative = code_bit(decoding, np.int64(level < 0), q, state, words)
            learn(probabilities, counts, weights, SIGN_SET, sign, q, negative)
            coded = np.int64(1)
            while True:
                chosen, larger = _look_larger(near, coded)
                r = mix(probabilities, weights, chosen, larger)
                bit = code_bit(decoding, np.int64(size > coded), r, state, words)
                learn(probabilities, counts, weights, chosen, larger, r, bit)
                if not bit:
                    break
                coded += 1
                if coded > ESCAPE:
                    coded = ESCAPE + code_gamma(decoding, size - ESCAPE, 24, state, words)
                    break
            size = coded
            level = -size if negative else size
        if decoding:
            levels[here] = level
            work -= of_size(size)
            if work < 0:
                left_over[1] = work
                return 0
        left2, left = left, level
        columns[at_column], row = _remember(size, column, row)
        j += 1
        if j == cols:
            row, left, left2, j = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    left_over[1] = work
    return levels.size
