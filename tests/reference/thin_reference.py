"""Slow plain reader and writer of `thin` streams, after FORMAT.md: whole numbers, lists and loops, nothing compiled.

The writer takes the choices (modes, levels …) as they are; how an encoder comes to them is its own affair.
"""

from bisect import bisect_left
from decimal import Decimal, localcontext
from math import prod, sqrt

import numpy as np
import rangecoder_reference as ranges

ESCAPE, LIMIT, HALF, TOP = 14, 100, 1 << 15, 2047
CONTEXTS = {0: 2, 1: 4, 2: 6}  # of the bit "not zero", by effort
ZERO, LEVELS, PRODUCTS, BOTH = range(4)
USUAL = (4, 2, 1)


def _squash():
    with localcontext(prec=40):
        exact = [65536 / (1 + (Decimal(-x) / 256).exp()) for x in range(-TOP, TOP + 1)]
    return [min(max(round(p), 16), 65520) for p in exact]


SQUASH = _squash()


def stretch(p):
    """The x in −2047 … 2047 whose squashed value is nearest to the middle of p's sixteenth; on a tie the smaller."""
    middle = (p >> 4) * 16 + 8
    after = min(max(bisect_left(SQUASH, middle), 1), 2 * TOP)
    return (after - 1 if middle - SQUASH[after - 1] <= SQUASH[after] - middle else after) - TOP


def size_class(value):
    value, octaves = min(value, 255), 0
    while value >= 4:
        value, octaves = value >> 1, octaves + 1
    return 2 * octaves + value


class Writer:
    """Collects bits and their probabilities."""

    reading = False

    def __init__(self):
        self.coded, self.chances = [], []

    def bit(self, bit, p):
        self.coded.append(int(bit))
        self.chances.append(p)
        return int(bit)

    def close(self):
        return ranges.encode_bits(self.coded, self.chances)


class Reader:
    """Hands bits out."""

    reading = True

    def __init__(self, payload):
        self.position = ranges._Position(payload)

    def bit(self, _, p):
        part = (self.position.width >> 16) * p
        bit = int(self.position.offset < part)
        self.position.take(0, part) if bit else self.position.take(part, self.position.width - part)
        return bit


def number(coder, value, count):
    result = 0
    for k in range(count - 1, -1, -1):
        result = 2 * result + coder.bit(value >> k & 1, HALF)
    return result


def gamma(coder, value):
    length = 0
    while length < 23 and coder.bit(length < value.bit_length() - 1, HALF):
        length += 1
    result = 1
    for k in range(length - 1, -1, -1):
        result = 2 * result + coder.bit(value >> k & 1, HALF)
    return result


class Model:
    """Contexts by name, mixers by name."""

    def __init__(self):
        self.chance, self.seen, self.weights = {}, {}, {}

    def next_plane(self):
        self.seen = {name: min(count, 6) for name, count in self.seen.items()}

    def code(self, coder, bit, mixer, contexts):
        first = HALF // 4 if mixer[0] == "zero" else HALF
        chances = [self.chance.get(c, first) for c in contexts]
        inputs = [stretch(p) for p in chances]
        weights = self.weights.setdefault(mixer, [19661] * len(contexts))
        mixed = sum(w * x for w, x in zip(weights, inputs, strict=True)) >> 16
        p = SQUASH[min(max(mixed, -TOP), TOP) + TOP]
        bit = coder.bit(bit, p)
        error = ((bit << 16) - p) * 14
        for k, context in enumerate(contexts):
            weights[k] += (inputs[k] * error + (1 << 17)) >> 18
            count = self.seen.get(context, 0)
            rate = 131072 // (2 * count + 3)
            self.chance[context] = chances[k] + (((65535 if bit else 0) - chances[k]) * rate >> 16)
            self.seen[context] = min(count + 1, LIMIT)
        return bit


def sign(value):
    return (value > 0) - (value < 0) + 1


def clip(value, most):
    return min(max(value, -most), most)


def plane(coder, model, levels, rows, cols, known, kernel_row, kernel, contexts):
    """Levels of a plane, a list; known: (class, line, sign) of each entry."""
    model.next_plane()
    out, columns = [0] * (rows * cols), [0] * cols
    for i in range(rows):
        row = 0
        for j in range(cols):
            o = i * cols + j

            def at(di, dj, o=o, i=i, j=j):
                return out[o - di * cols - dj] if i >= di and 0 <= j - dj < cols else 0

            left, left2, up, up2 = at(0, 1), at(0, 2), at(1, 0), at(2, 0)
            above = at(0, kernel_row) if kernel_row else 0
            channel = at(0, kernel) if kernel else 0
            a1, a2, au, aa, ac = (abs(v) for v in (left, left2, up, above, channel))
            around = size_class(4 * a1 + 2 * a2 + 2 * au + abs(at(1, -1)) + abs(at(1, 1)) + 2 * aa + 2 * ac)
            mean, means = size_class(columns[j] >> 4), size_class(row >> 4)
            own, line, shared = known[o]
            few = (min(a1, 3), min(a2, 3))
            zero = [
                ("z0", around, own),
                ("z1", mean, means),
                ("z2", *few, min(au, 3), min(aa, 3), min(ac, 3)),
                ("z3", line, around),
                ("z4", mean, own, min(around, 3)),
                ("z5", own, line),
            ][:contexts]
            level = 0 if coder.reading else levels[o]
            size, negative = abs(level), level < 0
            if model.code(coder, size > 0, ("zero", around), zero):
                s1, s2 = sign(left), sign(left2)
                signs = [
                    ("s0", s1, s2, sign(above), sign(channel)),
                    ("s1", shared, own),
                    ("s2", s1, sign(up), sign(up2), shared),
                    ("s3", clip(left, 2), clip(left2, 2), shared),
                ]
                negative = model.code(coder, negative, ("sign",), signs)
                coded = 1
                while coded <= ESCAPE:
                    k = coded - 1
                    larger = [("m0", k, around, own), ("m1", k, mean, line), ("m2", k, *few)]
                    if not model.code(coder, size > coded, ("size", min(coded, 4)), larger):
                        break
                    coded += 1
                if coded > ESCAPE:
                    coded = ESCAPE + gamma(coder, size - ESCAPE)
                size = coded
                out[o] = -size if negative else size
            value = min(256 * size, 4096)
            columns[j] += (value - columns[j]) >> 2 if columns[j] < value else -((columns[j] - value + 3) >> 3)
            row += (value - row) >> 3 if row < value else -((row - value + 15) >> 4)
    return out


def values(levels, offsets, step):
    out = []
    for level in levels:
        size = abs(level)
        value = (64 * size - offsets[min(size, 3) - 1]) * (step / 64) if size else 0.0
        out.append(-value if level < 0 else value)
    return out


def _bits(value):
    return int(np.float32(value).view(np.uint32)) & 0x7FFFFFFF


def half_octaves(means):
    """How far magnitudes lie below the largest, by the bits of float32, after division by the largest."""
    top = max(means) or 1.0
    bits = [_bits(np.float32(m / top)) >> 22 if m else None for m in means]
    most = max((b for b in bits if b is not None), default=0)
    return [
        15 if b is None or np.float32(m / top) == 0 else min(most - b, 14) for b, m in zip(bits, means, strict=True)
    ]


def told(matrix, rows, columns):
    """(class, line, sign) of each entry of a shared matrix, a list of rows of float32."""
    most = max((_bits(v) for r in matrix for v in r), default=0) >> 22
    return [
        (
            max(15 - (most - (_bits(v) >> 22)), 1) if v else 0,
            max(15 - rows[i] - columns[j], 0),
            (2 if v > 0 else 0) if v else 1,
        )
        for i, r in enumerate(matrix)
        for j, v in enumerate(r)
    ]


class Tensor:
    """Form and shared part of a tensor."""

    def __init__(self, shape, shared):
        n = prod(shape)
        self.rows = shape[0] if len(shape) >= 2 else 1
        self.cols = n // self.rows
        area = prod(shape[2:]) if len(shape) >= 3 else 1
        self.kernel = area if area > 1 else 0
        self.kernel_row = shape[-1] if len(shape) >= 3 and 2 < shape[-1] < area else 0
        self.shared = None if shared is None else [list(row) for row in shared.reshape(self.rows, self.cols)]
        if self.shared is not None:
            magnitudes = [[abs(float(v)) for v in row] for row in self.shared]
            row_means, column_means = [], [0.0] * self.cols
            for row in magnitudes:
                total = 0.0
                for j, v in enumerate(row):
                    total += v
                    column_means[j] += v
                row_means.append(total / self.cols)
            self.below = half_octaves(row_means), half_octaves([c / self.rows for c in column_means])

    def entries(self):
        if self.shared is None:
            return [(0, 0, 1)] * (self.rows * self.cols)
        return told(self.shared, *self.below)

    def left(self, rank):
        if self.shared is None:
            return [(0, 0, 1)] * (rank * self.rows)
        return [(max(15 - below, 0), 0, 1) for _ in range(rank) for below in self.below[0]]

    def right(self, units):
        if self.shared is None:
            return [(0, 0, 1)] * (len(units) * self.cols)
        seen = [[0.0] * self.cols for _ in units]
        for i, row in enumerate(self.shared):
            for k, unit in enumerate(units):
                if unit[i] != 0:
                    for j, v in enumerate(row):
                        seen[k][j] += unit[i] * float(v)
        top = max(abs(v) for row in seen for v in row) or 1.0
        return told([[np.float32(v / top) for v in row] for row in seen], [0] * len(units), self.below[1])


def unit_rows(rows):
    out = []
    for row in rows:
        norm = 0.0
        for v in row:
            norm += v * v
        scale = 1 / sqrt(norm) if norm > 0 else 1.0
        out.append([v * scale for v in row] if norm > 0 else row)
    return out


def tensor(coder, model, piece, t, step, contexts):
    """One tensor, written or read: (mode, coefficient, rank, planes of (levels, offsets)), and its values."""
    mode, coefficient, rank, planes = piece
    mode = number(coder, mode, 2)
    if t.shared is None or not number(coder, int(coefficient != 0), 1):
        coefficient = 0
    else:
        coefficient = number(coder, coefficient + 128, 8) - 128
    given, found, known = iter(planes), [], []

    def one(rows, cols, told_of, kernels):
        levels, offsets = next(given, (None, USUAL))
        if number(coder, int(tuple(offsets) != USUAL), 1):
            offsets = tuple(number(coder, o + 16, 6) - 16 for o in offsets)
        else:
            offsets = USUAL
        out = plane(coder, model, levels, rows, cols, told_of, *kernels, contexts)
        found.append((out, offsets))
        known.append(values(out, offsets, step))
        return known[-1]

    kernels, n = (t.kernel_row, t.kernel), t.rows * t.cols
    out = [np.float32(0)] * n
    if coefficient:
        share = np.float32(coefficient / 64)
        out = [share * v for row in t.shared for v in row]
    if mode in (PRODUCTS, BOTH):
        rank = number(coder, rank - 1, 6) + 1
        flat = one(rank, t.rows, t.left(rank), (0, 0))
        units = unit_rows([flat[k * t.rows : (k + 1) * t.rows] for k in range(rank)])
        right = one(rank, t.cols, t.right(units), kernels)
        for i in range(t.rows):
            for j in range(t.cols):
                total = 0.0
                for k in range(rank):
                    if units[k][i] != 0:
                        total += units[k][i] * right[k * t.cols + j]
                out[i * t.cols + j] += np.float32(total)
    if mode in (LEVELS, BOTH):
        for o, value in enumerate(one(t.rows, t.cols, t.entries(), kernels)):
            out[o] += np.float32(value)
    return (mode, coefficient, rank if mode in (PRODUCTS, BOTH) else 0, found), out


def step_of(k):
    with localcontext(prec=40):
        fraction = float((Decimal(2).ln() * (k % 128) / 128).exp())
    return fraction * 2.0 ** (k // 128)


def decode(payload, shapes, shared):
    """Pieces and values of a whole payload."""
    effort, k = payload[0] & 3, int.from_bytes(payload[1:3], "little", signed=True)
    assert payload[0] >> 2 == (len(payload) - 3) % 64
    coder, model, pieces, out, offset = Reader(payload[3:]), Model(), [], [], 0
    for shape in shapes:
        n = prod(shape)
        if n:
            part = None if shared is None else shared[offset : offset + n]
            piece, found = tensor(coder, model, (0, 0, 1, []), Tensor(shape, part), step_of(k), CONTEXTS[effort])
            pieces.append(piece)
            out += found
        offset += n
    return pieces, np.array(out, np.float32)


def encode(pieces, shapes, shared, effort, k):
    """The payload of pieces."""
    coder, model, given, offset = Writer(), Model(), iter(pieces), 0
    for shape in shapes:
        n = prod(shape)
        if n:
            part = None if shared is None else shared[offset : offset + n]
            tensor(coder, model, next(given), Tensor(shape, part), step_of(k), CONTEXTS[effort])
        offset += n
    stream = coder.close()
    return bytes([effort | len(stream) % 64 << 2]) + k.to_bytes(2, "little", signed=True) + stream
