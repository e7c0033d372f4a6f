"""`qsgd`: stochastic levels of a norm, bucket by bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire import rng
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite, runs, take_labels, take_scales
from thinwire.codecs.config import require
from thinwire.codecs.kernels import njit
from thinwire.codecs.votes import Votes
from thinwire.errors import ConfigError
from thinwire.layout import Layout

MAX_LEVELS = 2**20
LARGEST = float(np.finfo(np.float32).max)


@njit(cache=True)
def _norms(x, edges, euclidean, norms):  # type: ignore[no-untyped-def]
    for bucket in range(norms.size):
        largest, squares = np.float64(0), np.float64(0)
        for i in range(edges[bucket], edges[bucket + 1]):
            magnitude = np.float64(abs(x[i]))
            largest = max(largest, magnitude)
            squares += magnitude * magnitude
        norms[bucket] = min(np.sqrt(squares), LARGEST) if euclidean else largest


@njit(cache=True)
def _labels(x, edges, norms, levels, draws, labels):  # type: ignore[no-untyped-def]
    for bucket in range(norms.size):
        unit = levels / np.float64(norms[bucket]) if norms[bucket] > 0 else 0.0
        for i in range(edges[bucket], edges[bucket + 1]):
            level = min(levels, np.int64(np.float64(abs(x[i])) * unit + np.float64(draws[i])))
            labels[i] = 2 * level - (1 if level > 0 and x[i] < 0 else 0)


@dataclass(frozen=True)
class QSGD:
    """Every entry as a level 0 … s of its bucket's norm, right on average: x̂ = ‖v‖ · sign(x) · ξ / s.

    ξ is ⌊s |x| / ‖v‖ + u⌋ with u uniform on [0, 1), so that E x̂ = x. levels: s. bucket: entries that share a norm, cut
    tensor by tensor, the last bucket of a tensor shorter; 0 for one bucket a tensor. norm: 'l2' or 'max' (the largest
    magnitude). NMSE of a bucket of d entries: at most min(d / s², √d / s) with 'l2'; for Gaussian entries close to
    d / (6 s²) while that is below one, .333 at d = 512, s = 16.

    Payload: ‖v‖ of each bucket as float32 (a norm beyond float32 is its largest value, which is still no smaller than
    any entry); then the payload of `labels` for 0, −1, +1, −2, +2, … as 0, 1, 2, 3, 4, … The draws are the encoder's
    own: stream `qsgd` of the context's seed.
    Errors: ConfigError for NaN, infinity or a field out of range; DecodeError for a bad norm or a label above 2 s.
    Reference: Alistarh, Grubic, Li, Tomioka, Vojnović, "QSGD: Communication-efficient SGD via gradient quantization
    and encoding", NeurIPS 2017, §3.1 (quantisation, Lemma 3.1) and §4 (buckets, max norm).
    Differs from the paper: levels are range-coded with one table a tensor instead of Elias's code.
    """

    id: ClassVar[str] = "qsgd"
    dtype: ClassVar[str] = "float32"

    levels: int = 16
    bucket: int = 512
    norm: str = "l2"
    labels: Codec = Votes()  # noqa: RUF009  frozen itself

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= MAX_LEVELS:
            raise ConfigError(f"{self.id}.levels", self.levels, f"1 to {MAX_LEVELS}")
        if self.bucket < 0:
            raise ConfigError(f"{self.id}.bucket", self.bucket, "a number of entries, or 0 for the whole tensor")
        if self.norm not in ("l2", "max"):
            raise ConfigError(f"{self.id}.norm", self.norm, "l2 or max")
        require(f"{self.id}.labels", self.labels, "uint32")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Norms, then coded levels."""
        x, edges = finite(checked(x, np.float32, context)), self._edges(context.layout)
        norms, labels = np.empty(edges.size - 1, dtype=np.float32), np.empty(x.size, dtype=np.uint32)
        _norms(x, edges, self.norm == "l2", norms)
        draws = rng.generator(context.seed, purpose=self.id).random(x.size, dtype=np.float32)
        _labels(x, edges, norms, self.levels, draws, labels)
        return norms.astype("<f4").tobytes() + self.labels.encode(labels, Context(context.layout))

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """Norm times signed level over s for every entry."""
        edges = self._edges(context.layout)
        norms, coded = take_scales(payload, edges.size - 1, self.id, "norms")
        labels = take_labels(self.labels, coded, context, 2 * self.levels, self.id).astype(np.int64)
        signed = np.where(labels & 1, -(labels + 1), labels) // 2  # 0, −1, 1, −2, 2, …
        return np.repeat(norms, np.diff(edges)) * (signed.astype(np.float32) / np.float32(self.levels))

    def _edges(self, layout: Layout) -> np.ndarray:
        """Where buckets start, and the end of the vector.  # (buckets + 1,) int64"""
        starts = [np.arange(at, at + size, self.bucket or size) for at, size in zip(*runs(layout), strict=True)]
        return np.concatenate([*starts, np.array([layout.size])]).astype(np.int64)
