"""`lloyd`: M22's value quantiser, Lloyd–Max for a fitted law under d_M(x, x̂) = |x|ᴹ (x − x̂)²."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite
from thinwire.codecs.codebooks import FAMILIES, codebook, fit, pack, read_book, unpack, write_book
from thinwire.codecs.config import require
from thinwire.codecs.kernels import njit
from thinwire.codecs.votes import Votes
from thinwire.errors import ConfigError, one_of

MOST = 64.0
MOST_ROUNDS = 1000  # of a schedule
TRIED = (0.0, 1.0, 2.0, 4.0, 6.0)

Schedule = tuple[tuple[int, float], ...]


@njit(cache=True)
def _moments(x):  # type: ignore[no-untyped-def]
    least, most, total, square = np.inf, 0.0, 0.0, 0.0
    for value in x:
        a = abs(np.float64(value))
        least, most = min(least, a), max(most, a)
        total += a
        square += a * a
    return least, most, total / x.size, square / x.size


@njit(cache=True)
def _label(x, centres, labels):  # type: ignore[no-untyped-def]
    """Nearest of ±centres, K of them, a power of two: labels ascend with the value.  -> Σ (x − x̂)²."""
    number, error = centres.size, 0.0
    thresholds = ((centres[:-1].astype(np.float64) + centres[1:]) / 2).astype(np.float32)
    for j in range(number - 1):
        if thresholds[j] == 0 < centres[j + 1]:
            thresholds[j] = centres[j + 1]  # the least float32: its half would count as 0
    for i in range(x.size):
        a, j, step = abs(x[i]), 0, number >> 1
        while step:
            j += step if a >= thresholds[j + step - 1] else 0
            step >>= 1
        labels[i] = number - 1 - j if x[i] < 0 else number + j
        error += (np.float64(a) - np.float64(centres[j])) ** 2
    return error


@njit(cache=True)
def _sums(x, labels, power, most, cells):  # type: ignore[no-untyped-def]
    """Of each of K cells of |x|: Σ w and Σ w |x|, w = (|x| / most)ᴹ."""
    weights, firsts = np.zeros(cells), np.zeros(cells)
    for i in range(x.size):
        label = np.int64(labels[i])
        j = label - cells if label >= cells else cells - 1 - label
        a = abs(np.float64(x[i]))
        weight = (a / most) ** power
        weights[j] += weight
        firsts[j] += weight * a
    return weights, firsts


@dataclass(frozen=True)
class Lloyd:
    """Each entry as the label of the nearest of ±c₁ … ±c_K, K = 2ᴿ⁻¹: the Lloyd–Max centres of its tensor's law.

    family: "gennorm" or "weibull". magnitude: M, 0 to 64; or "auto", for each tensor that of 0, 1, 2, 4, 6 with the
    least Σ (x − x̂)²; or a schedule ((0, M), (round, M), …), which `at` resolves. bits: R, 1 to 8. labels: their codec.

    A tensor's law is cut off at t = min|x|, as the survivors of top-K are, and has the tensor's E|x| and E|x|²;
    without selection t is next to 0 and the law is whole. Measured on a million entries (generalised normal of β = .3,
    .5, 1, 2, Student-t, a scale mixture), geometric means over R = 1, 2, 4 of Σ d_M / Σ |x|ᴹ⁺²:

        keep, M                               .1, 0   .01, 0   .1, 2   .01, 2
        law cut off at t (this codec)          .040     .019    .061     .034
        law of |x| − t                         .042     .019    .087     .061
        whole law fitted to the survivors      .090     .058    .182     .116
        best centres for these very entries    .040     .019    .053     .028

    No centre lies beyond max|x|, where M > 0 and a law that does not fit would put one. Where at least 2⁻ᴿ of a
    tensor's entries are 0 and R > 1, the least centre is 0 and the law that of the others: 0 comes back as 0. Where the
    law's centres leave more d_M than 0 for every entry would, no law of the family fits: the centres are those of the
    very entries, Σ |x|ᴹ⁺¹ / Σ |x|ᴹ of each cell. The squared error may still be larger where M > 0; `m22`'s is not.

    Payload: varint length of the coded labels; these, label K + j − 1 for c_j and K − j for −c_j; for each tensor that
    has entries those of its c_j that occur: the largest as float32, the others, ascending, as float16 fractions of it.
    The centres are sent because incomplete gamma functions may differ in the last bit between machines: at most
    4 + 2 (K − 1) bytes a tensor (6 at R = 2, 18 at R = 4). So the reader needs neither family nor M.

    Errors: ConfigError for NaN, infinity, a field out of range or a schedule that is not resolved; DecodeError for a
    label, centre or length that the writer does not make.
    Reference: Liu, Rini, Salehkalaibar, Chen, "M22", arXiv 2301.09269; with "weibull" and M = 0 TinyScript, ICML 2020.
    Differs from the paper: see `codebooks`; the labels are entropy-coded, which M > 0 makes worth more (Laplace, R = 2:
    1.73 bits at M = 0, 1.18 at M = 2).
    """

    id: ClassVar[str] = "lloyd"
    dtype: ClassVar[str] = "float32"
    family: str = "gennorm"
    magnitude: float | str | Schedule = field(default_factory=float)  # no plain default, which would fix the type
    bits: int = 2
    labels: Codec = Votes()  # noqa: RUF009  frozen itself

    capped: ClassVar[bool] = False  # is M lowered where its centres leave more squared error than sending nothing?

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError("lloyd.family", self.family, one_of(self.family, FAMILIES))
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ConfigError("lloyd.bits", self.bits, "a whole number from 1 to 8")
        require(f"{self.id}.labels", self.labels, "uint32")
        object.__setattr__(self, "magnitude", _one_form(self.magnitude))  # 2 and 2.0 must have the same tag

    def at(self, round: int) -> Lloyd:
        """The codec of a round, with the M of the schedule's last entry up to it; itself where there is no schedule."""
        if not isinstance(self.magnitude, tuple):
            return self
        return replace(self, magnitude=[m for first, m in self.magnitude if first <= max(round, 0)][-1])

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Labels, then centres."""
        if isinstance(self.magnitude, tuple):
            raise ConfigError("lloyd.magnitude", self.magnitude, "one M: encode with the codec that at(round) gives")
        x, labels = finite(checked(x, np.float32, context)), np.empty(context.layout.size, dtype=np.uint32)
        spans = [entry.slice for entry in context.layout if entry.size]
        return pack(labels, self.labels, context, [self._quantise(x[span], labels[span]) for span in spans])

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) float32, bit for bit the centres that the encoder chose."""
        labels, reader = unpack(payload, self.labels, context, 2**self.bits)
        x = np.empty(labels.size, dtype=np.float32)
        for span in (entry.slice for entry in context.layout if entry.size):
            used = _used(labels[span], self.bits)
            centres = np.zeros(used.size, dtype=np.float32)
            centres[used] = read_book(reader.take(2 + 2 * int(used.sum())))
            x[span] = np.concatenate([-centres[::-1], centres])[labels[span]]
        reader.end()
        return x

    def _quantise(self, x: np.ndarray, labels: np.ndarray) -> bytes:
        """Fills in one tensor's labels; -> its centres as bytes."""
        zeros = x.size - int(np.count_nonzero(x))
        pinned = self.bits > 1 and x.size <= zeros * 2**self.bits < x.size * 2**self.bits
        moments = _moments(x[x != 0] if pinned else x)
        energy = moments[3] * (x.size - zeros if pinned else x.size)
        tried = TRIED if self.magnitude == "auto" else (float(self.magnitude),)  # type: ignore[arg-type]
        books = [self._centres(magnitude, pinned, *moments) for magnitude in tried]
        errors = [_label(x, book, labels) for book in books]
        best = int(np.argmin(errors))
        book, magnitude = books[best], tried[best]
        while self.capped and errors[best] > energy and magnitude:
            magnitude = magnitude / 2 if magnitude > 0.25 else 0.0
            book = self._centres(magnitude, pinned, *moments)
            errors[best] = _label(x, book, labels)
        if best + 1 < len(tried):
            _label(x, book, labels)
        if errors[best] > energy:
            book = _of_entries(x, book, labels, magnitude, moments[1])
        return write_book(book[_used(labels, self.bits)])

    def _centres(
        self, magnitude: float, pinned: bool, least: float, most: float, mean: float, square: float
    ) -> np.ndarray:
        """K ascending centres of the law with this t, E|x| and E|x|², none beyond max|x|; all t if all |x| are t.

        pinned: the first of them is 0.
        """
        zero = np.zeros(int(pinned), np.float32)
        if mean <= least:
            return np.append(zero, np.full(2 ** (self.bits - 1) - zero.size, least, dtype=np.float32))
        book = codebook(self.family, *fit(self.family, least, mean, square), magnitude, self.bits, zero.size)
        return np.append(zero, np.minimum(least + (mean - least) * book, most).astype(np.float32))


def _of_entries(x: np.ndarray, book: np.ndarray, labels: np.ndarray, magnitude: float, most: float) -> np.ndarray:
    """The centres themselves, or, if 0 would be nearer under d_M, those of the entries in their cells, relabelled."""
    weights, firsts = _sums(x, labels, magnitude, most, book.size)
    c = book.astype(np.float64)
    if ((2 * firsts - weights * c) * c).sum() >= 0:
        return book
    centres = np.divide(firsts, weights, out=np.zeros(book.size), where=weights > 0)
    centres = np.maximum.accumulate(centres).astype(np.float32)
    _label(x, centres, labels)
    return centres


@dataclass(frozen=True)
class CappedLloyd(Lloyd):
    """`Lloyd`, whose bytes it writes, with M halved for a tensor until Σ (x − x̂)² is at most Σ x²."""

    capped: ClassVar[bool] = True


def _one_form(magnitude: object) -> float | str | Schedule:
    """M as a float, "auto" or a schedule of pairs (int, float); ConfigError for anything else."""
    if magnitude == "auto":
        return "auto"
    if isinstance(magnitude, int | float) and type(magnitude) is not bool and 0 <= magnitude <= MOST:
        return float(magnitude)
    if isinstance(magnitude, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in magnitude):
        rounds, constants = [n for n, _ in magnitude], [m for _, m in magnitude if isinstance(m, int | float)]
        ascending = all(type(n) is int for n in rounds) and rounds == sorted(set(rounds)) and rounds[:1] == [0]
        if ascending and len(constants) == len(rounds) <= MOST_ROUNDS:
            return tuple((n, float(_one_form(m))) for n, m in zip(rounds, constants, strict=True))  # type: ignore[arg-type]
    raise ConfigError(
        "lloyd.magnitude",
        magnitude,
        f'0 to {MOST:g}, "auto", or ((0, M), (round, M), …), rounds ascending, at most {MOST_ROUNDS}',
    )


def _used(labels: np.ndarray, bits: int) -> np.ndarray:
    """Which centres occur, with either sign.  # (n,) -> (K,) bool"""
    negative, positive = np.bincount(labels, minlength=2**bits).reshape(2, -1)
    return (negative[::-1] + positive) > 0
