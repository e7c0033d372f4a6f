"""`uniform`: 2ᵇ equidistant levels per tensor, the opponent of the quantisers with a codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite, runs, take_labels, take_scales
from thinwire.codecs.config import require
from thinwire.codecs.kernels import njit
from thinwire.codecs.votes import Votes
from thinwire.errors import ConfigError, one_of

STEPS = ("mse", "max")
LARGEST = float(np.finfo(np.float32).max)


@njit(cache=True)
def _fit(x, half, levels):  # type: ignore[no-untyped-def]
    """Σ |x| y and Σ y² for the levels yh nearest to |x|, y = 1, 3, … 2L − 1."""
    product, square, inverse = 0.0, 0.0, 0.5 / half
    for value in x:
        a = abs(np.float64(value))
        y = 2 * np.floor(min(a * inverse, levels - 1.0)) + 1
        product += a * y
        square += y * y
    return product, square


@njit(cache=True)
def _label(x, half, levels, labels):  # type: ignore[no-untyped-def]
    """L levels of either sign: labels ascend with the value."""
    inverse = 0.5 / half if half > 0 else 0.0
    for i in range(x.size):
        level = np.int64(min(abs(np.float64(x[i])) * inverse, levels - 1.0))
        labels[i] = levels - 1 - level if x[i] < 0 else levels + level


@dataclass(frozen=True)
class Uniform:
    """Mid-rise: x̂ = (2k + 1) h, k = −L … L − 1 with L = 2ᵇ⁻¹: steps of 2h, symmetric, no level at 0, ends clipped.

    So 0 comes back as h; after `topk`, which keeps no zeros, it stays 0. With "mse" a tensor's error is never larger
    than that of sending nothing; with "max", which bounds each entry's error by h, it may be.

    bits: b, 1 to 16. labels: the codec of the labels. step: how each tensor's h is chosen. "max": max|x| / 2L, so that
    the outermost cells end at max|x|. "mse": the least Σ (x − x̂)² that a search finds: cells of width 2h,
    h = max|x| / (2L − 1) · 2⁻ⁱ, i = 0 … 12, then h · 2^±f for f = 1/2, 1/4 … 1/32 around the best; to each belongs the
    h that is best for its cells, Σ |x| y / Σ y², yh being the level of |x|.

    Payload: h of each tensor that has entries as float32, then the payload of `labels` for k + L.
    Errors: ConfigError for NaN, infinity or a field out of range; DecodeError for a bad h or a label beyond 2L − 1.
    Reference: Jayant, Noll, "Digital coding of waveforms", 1984, chapter 4; the "uniform scalar quantiser" of M22,
    arXiv 2301.09269. Differs from M22: it leaves the choice of the step open, and does not entropy-code the labels.
    """

    id: ClassVar[str] = "uniform"
    dtype: ClassVar[str] = "float32"
    bits: int = 2
    step: str = "mse"
    labels: Codec = Votes()  # noqa: RUF009  frozen itself

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 16:
            raise ConfigError("uniform.bits", self.bits, "a whole number from 1 to 16")
        if self.step not in STEPS:
            raise ConfigError("uniform.step", self.step, one_of(self.step, STEPS))
        require(f"{self.id}.labels", self.labels, "uint32")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Half steps, then labels."""
        x, labels = finite(checked(x, np.float32, context)), np.empty(context.layout.size, dtype=np.uint32)
        spans = [entry.slice for entry in context.layout if entry.size]
        halves = np.array([self._half_step(x[span]) for span in spans], dtype="<f4")
        for span, half in zip(spans, halves, strict=True):
            _label(x[span], np.float64(half), 2 ** (self.bits - 1), labels[span])
        return halves.tobytes() + self.labels.encode(labels, Context(context.layout))

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(2k + 1) h, at most the largest float32."""
        sizes = runs(context.layout)[1]
        halves, coded = take_scales(payload, sizes.size, self.id, "half steps")
        labels = take_labels(self.labels, coded, context, 2**self.bits - 1, self.id)
        values = (2.0 * labels - (2**self.bits - 1)) * np.repeat(halves, sizes)
        return np.clip(values, -LARGEST, LARGEST).astype(np.float32)

    def _half_step(self, x: np.ndarray) -> float:
        """h of one tensor (n,), 0 where all entries are 0."""
        levels, top = 2 ** (self.bits - 1), float(np.abs(x).max())
        if self.step == "max" or top == 0:
            return top / (2 * levels)
        best = max(_gain(x, top / (2 * levels - 1) * 2.0**-i, levels) for i in range(13))
        for power in (0.5, 0.25, 0.125, 0.0625, 0.03125):
            best = max(best, *(_gain(x, best[1] * 2**sign, levels) for sign in (-power, power)))
        return best[1]


def _gain(x: np.ndarray, half: float, levels: int) -> tuple[float, float]:
    """What the best h for the cells of this one takes out of Σ x², (Σ |x| y)² / Σ y², and that h."""
    product, square = _fit(x, half, levels)
    return product * (product / square), product / square
