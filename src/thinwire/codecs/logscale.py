"""`logscale`: magnitudes on a logarithmic scale, for what is only ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite, take_labels, take_scales
from thinwire.codecs.config import require
from thinwire.codecs.votes import Votes
from thinwire.errors import ConfigError, DecodeError

_MAGNITUDE = np.uint32(0x7FFFFFFF)  # a float32 without its sign, ordered as its magnitude


@dataclass(frozen=True)
class LogScale:
    """|x| on L = 2^bits − 2 levels, equal steps of the logarithm from a to b; signs are lost.

    The logarithm is ℓ(x), the bits of float32 |x| read as a whole number: 2²³ (log₂ |x| + 127), linear within an
    octave, so that only whole numbers are computed with. For a ≤ |x| ≤ b
    label = 1 + ⌊(ℓ(x) − ℓ(a)) (L − 1) / (ℓ(b) − ℓ(a)) + ½⌋: half a step is the largest error of ℓ. Label 0 is what is
    below a, L + 1 what is above b; both come back as the mean of their magnitudes.

    keep: fraction of the vector's entries, the largest, that are not below a; 1: a is the smallest that is not 0, and
    0 comes back as 0. top: fraction that is above b. Narrow ends give fine steps where a ranking is decided.
    Payload: a, b and the means below and above as float32, 0 where there are none; then the payload of `labels`.
    Errors: ConfigError for NaN or infinity; DecodeError unless a ≤ b, both or none of them 0, and labels fit.
    """

    id: ClassVar[str] = "logscale"
    dtype: ClassVar[str] = "float32"
    carries: ClassVar[str] = "magnitudes"
    bits: int = 8
    keep: float = 1.0
    top: float = 0.0
    labels: Codec = Votes()  # noqa: RUF009  frozen itself

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"{self.id}.bits", self.bits, "2 to 8")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"{self.id}.keep", self.keep, "above 0, at most 1")
        if not 0 <= self.top < self.keep:
            raise ConfigError(f"{self.id}.top", self.top, f"0 to {self.id}.keep, the latter excluded")
        require(f"{self.id}.labels", self.labels, "uint32")

    @property
    def _steps(self) -> int:
        return 2**self.bits - 3

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Range, means and coded labels of (n,) float32."""
        magnitudes = np.abs(finite(checked(x, np.float32, context)))
        logs = magnitudes.view(np.uint32).astype(np.int64)
        low, high = self._range(logs)
        rounded = (2 * (logs - low) * self._steps + (high - low)) // max(2 * (high - low), 1) + 1
        below, above = logs < max(low, 1), logs > high
        labels = np.where(below, 0, np.where(above, self._steps + 2, rounded)).astype(np.uint32)
        ends = np.array([low, high], dtype=np.uint32).view(np.float32)
        scales = np.array([*ends, _mean(magnitudes[below]), _mean(magnitudes[above])], dtype="<f4")
        return scales.tobytes() + self.labels.encode(labels, Context(context.layout))

    def _range(self, logs: np.ndarray) -> tuple[int, int]:
        """ℓ of a and of b; 0 and 0 when every entry is 0."""
        some = logs[logs > 0]
        if not some.size:
            return 0, 0
        kept = min(some.size, max(1, int(self.keep * logs.size + 0.5)))
        over = min(kept - 1, int(self.top * logs.size + 0.5))
        low, high = np.partition(some, [some.size - kept, some.size - over - 1])[[-kept, -over - 1]]
        return int(low), int(high)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) float32, none negative."""
        scales, coded = take_scales(payload, 4, self.id, "range")
        low, high = (int(end) for end in (scales[:2].view(np.uint32) & _MAGNITUDE))
        labels = take_labels(self.labels, coded, context, self._steps + 2, self.id)
        if low > high or (low == 0) != (high == 0):
            raise DecodeError(f"{self.id}: a range from {scales[0]} to {scales[1]}")
        steps = np.arange(self._steps + 1, dtype=np.int64)
        logs = low + (2 * steps * (high - low) + self._steps) // (2 * self._steps)
        levels = logs.astype(np.uint32).view(np.float32)
        return np.concatenate([scales[2:3], levels, scales[3:]])[labels]


def _mean(magnitudes: np.ndarray) -> np.float32:
    """Their mean, 0 of none."""
    return np.float32(magnitudes.mean(dtype=np.float64)) if magnitudes.size else np.float32(0)
