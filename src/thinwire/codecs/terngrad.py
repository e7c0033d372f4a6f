"""`terngrad`: stochastic ternary values, one scale a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire import rng
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite, runs, take_labels, take_scales
from thinwire.codecs.config import require
from thinwire.codecs.votes import Votes
from thinwire.errors import ConfigError

_SMALL, _LIFT = np.float32(2.0**-60), np.float32(2.0**64)


@dataclass(frozen=True)
class TernGrad:
    """Every entry as s, 0 or −s, right on average: x̂ = s · sign(x) · b, P(b = 1) = |x| / s, s = max|x| of the tensor.

    clip: c > 0 first cuts the entries of a tensor to ±c σ, σ² = Σ(x − mean)² / d; 0 leaves them as they are. Unbiased
    for what is left after the cut. NMSE of a tensor without a cut: s ‖x‖₁ / ‖x‖₂² − 1.

    Payload: for each tensor with entries s as float32; then the payload of `labels` for 0 (zero), 1 (+s), 2 (−s). The
    draws are the encoder's own: stream `terngrad` of the context's seed.
    Errors: ConfigError for NaN or infinity, a negative clip or labels of another dtype; DecodeError for a bad scale or
    a label above 2.
    Reference: Wen, Xu, Yan, Wu, Wang, Chen, Li, "TernGrad: Ternary gradients to reduce communication in distributed
    deep learning", NeurIPS 2017, §3.1 (equations 1–4) and §3.3 (layer-wise ternarising, clipping at c = 2.5).
    Differs from the paper: clipping is off unless asked for; labels are entropy-coded where it counts 2 bits; scales
    are not shared among clients.
    """

    id: ClassVar[str] = "terngrad"
    dtype: ClassVar[str] = "float32"

    clip: float = 0.0
    labels: Codec = Votes()  # noqa: RUF009  frozen itself

    def __post_init__(self) -> None:
        if not 0 <= self.clip <= 1000:
            raise ConfigError(f"{self.id}.clip", self.clip, "0 (off), or standard deviations up to 1000")
        require(f"{self.id}.labels", self.labels, "uint32")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Scales, then coded labels."""
        x = finite(checked(x, np.float32, context))
        starts, sizes = runs(context.layout)
        magnitudes = np.abs(x)
        scales = np.maximum.reduceat(magnitudes, starts)
        if self.clip:
            scales = np.minimum(scales, self.clip * _deviations(x, starts, sizes)).astype(np.float32)
        draws = rng.generator(context.seed, purpose=self.id).random(x.size, dtype=np.float32)
        lift = np.where(scales < _SMALL, _LIFT, np.float32(1))  # a draw of a subnormal scale would be rounded
        with np.errstate(over="ignore"):  # an entry far above a scale that was cut is kept, lifted to infinity or not
            kept = magnitudes * np.repeat(lift, sizes) > draws * np.repeat(scales * lift, sizes)
        labels = np.where(kept, np.where(x > 0, 1, 2), 0).astype(np.uint32)
        return scales.astype("<f4").tobytes() + self.labels.encode(labels, Context(context.layout))

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """s, 0 or −s for every entry."""
        _, sizes = runs(context.layout)
        scales, coded = take_scales(payload, sizes.size, self.id)
        labels = take_labels(self.labels, coded, context, 2, self.id)
        return np.array([0, 1, -1], dtype=np.float32)[labels] * np.repeat(scales, sizes)


def _deviations(x: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Standard deviation of every tensor with entries.  # (n,) float32 -> (tensors,) float64"""
    means = np.add.reduceat(x, starts, dtype=np.float64) / sizes
    return np.sqrt(np.add.reduceat((x - np.repeat(means, sizes)) ** 2, starts) / sizes)
