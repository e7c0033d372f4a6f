"""Named codecs: a paper's pipeline as an expression of building blocks. Its bytes are those of the expression."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from thinwire.codecs import trace
from thinwire.codecs.base import Codec, Context
from thinwire.codecs.byrole import ByRole
from thinwire.codecs.combine import Each, Prune, Shortest
from thinwire.codecs.entries import Vector, read
from thinwire.codecs.kmeans import KMeans
from thinwire.codecs.labels import Huffman, Members
from thinwire.codecs.lloyd import CappedLloyd, Lloyd, Schedule
from thinwire.codecs.mask import Mask
from thinwire.codecs.pooled import Pooled
from thinwire.codecs.positions import Fixed, Gaps
from thinwire.codecs.ternary import Ternary
from thinwire.codecs.topk import TopK
from thinwire.errors import ConfigError, one_of

ENCODINGS = ("huffman", "positions", "gaps", "best")
VARIANTS = ("faithful", "pinned")


class Named(ABC):
    """A codec that stands for another one, `inner`."""

    dtype: ClassVar[str] = "float32"

    @property
    @abstractmethod
    def inner(self) -> Codec:
        """The expression."""

    def __post_init__(self) -> None:
        """What the expression's parts refuse is refused at once, not with the first update."""
        _ = self.inner

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Payload of the expression."""
        return self.inner.encode(x, context)

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) float32."""
        return trace.through(self.inner, payload, context)

    def entries(self, payload: bytes, context: Context) -> Vector:
        """As entries, where the expression has them."""
        return trace.through(self.inner, payload, context, read)


@dataclass(frozen=True)
class FedZip(Named):
    """FedZip: top-z, k-means, encoded labels.

    faithful: per tensor, all but the `keep` largest become 0, k-means over the whole tensor (start: linspace of the
    range, 4 iterations), labels by Huffman, by the addresses or by the gaps of all clusters but the largest, or the
    `best` of these per tensor. pinned: only the kept entries are clustered, zero is exactly zero, positions and labels
    are range-coded; `scope` as in top-k, one set of centroids where it is `global`. `roles`: weights of 256 entries and
    more only, the rest as float16; without, everything goes the same way.

    Reference: Malekijoo et al., arXiv 2102.01593. Differs from the paper: every byte is written, centroids too, and
    can be decoded; its Huffman lengths [2, 1, 1] are no prefix code, ours are; its gap bits have no delimiters.
    """

    id: ClassVar[str] = "fedzip"
    variant: str = "pinned"
    keep: float = 0.01
    clusters: int = 3
    encoding: str = "best"
    scope: str = "tensor"
    roles: bool = True

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError("fedzip.variant", self.variant, one_of(self.variant, VARIANTS))
        if self.encoding not in ENCODINGS:
            raise ConfigError("fedzip.encoding", self.encoding, one_of(self.encoding, ENCODINGS))
        super().__post_init__()

    @cached_property
    def inner(self) -> Codec:
        """The expression."""
        weights = self._faithful() if self.variant == "faithful" else self._pinned()
        return ByRole(weights) if self.roles else weights

    def _faithful(self) -> Codec:
        labels: dict[str, Codec] = {"huffman": Huffman(), "positions": Members(Fixed()), "gaps": Members(Gaps())}
        start = KMeans(clusters=self.clusters, iterations=4, start="linspace")
        coders = {name: replace(start, labels=coder) for name, coder in labels.items()}
        chosen = Shortest(tuple(coders.values())) if self.encoding == "best" else coders[self.encoding]
        return Each(Prune(self.keep, chosen))

    def _pinned(self) -> Codec:
        values: Codec = KMeans(clusters=self.clusters)
        return TopK(self.keep, self.scope, Pooled(values) if self.scope == "global" else values, Mask())


@dataclass(frozen=True)
class M22(Named):
    """M22: global top-k over the large weights, then two-parameter Lloyd–Max quantisers under |x|ᴹ (x − x̂)².

    `keep` 0 stands for the authors' 0.6 / bits. Biases, norms and small tensors go as float16. Entries that are 0 are
    not kept, and M is halved for a tensor whose centres would leave a larger squared error than sending nothing.
    Reference: Liu, Rini, Salehkalaibar, Chen, arXiv 2301.09269. Differs from the paper in these two: without them a
    mostly-zero update comes back larger than it was.
    """

    id: ClassVar[str] = "m22"
    keep: float = 0.0
    bits: int = 2
    family: str = "gennorm"
    magnitude: float | str | Schedule = field(default_factory=lambda: 2.0)  # no plain default, which would fix the type

    def __post_init__(self) -> None:
        object.__setattr__(self, "magnitude", Lloyd(magnitude=self.magnitude).magnitude)  # 2 and 2.0: one tag
        super().__post_init__()

    def at(self, round: int) -> M22:
        """The codec of a round, where M follows a schedule."""
        magnitude = Lloyd(magnitude=self.magnitude).at(round).magnitude
        return replace(self, magnitude=magnitude)

    @cached_property
    def inner(self) -> Codec:
        """The expression."""
        values = CappedLloyd(family=self.family, magnitude=self.magnitude, bits=self.bits)
        return ByRole(TopK(self.keep or min(1.0, 0.6 / self.bits), "global", values, Mask()))


@dataclass(frozen=True)
class TinyScript(Named):
    """TinyScript: M22 with the two-sided Weibull law and plain squared error (M = 0).

    Reference: Fu et al., "Don't Waste Your Bits! Squeeze Activations and Gradients for Deep Neural Networks via
    TinyScript", ICML 2020. Differs from it: the same top-k as M22 goes before, so that only the quantiser differs.
    """

    id: ClassVar[str] = "tinyscript"
    keep: float = 0.0
    bits: int = 2

    @cached_property
    def inner(self) -> Codec:
        """The expression."""
        return M22(keep=self.keep, bits=self.bits, family="weibull", magnitude=0.0)


@dataclass(frozen=True)
class STC(Named):
    """Sparse ternary compression: the `keep` largest entries of the whole vector, a sign each, one magnitude.

    positions: `gaps` is the paper's Golomb code; `mask` range-codes them, conditioned on the last global change where
    both ends hold it. Reference: Sattler, Wiedemann, Müller, Samek, IEEE TNNLS 2020.
    """

    id: ClassVar[str] = "stc"
    keep: float = 0.0025
    positions: Codec = field(default_factory=Gaps)

    @cached_property
    def inner(self) -> Codec:
        """The expression."""
        return TopK(self.keep, "global", Pooled(Ternary()), self.positions)
