"""By role: large weights through one codec, everything else through another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from thinwire.codecs import trace, varint
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.config import require
from thinwire.codecs.dense import Float16
from thinwire.codecs.entries import Entries, Vector, dense, read
from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class ByRole:
    """`weights` codes the weights of at least `small` entries; `rest` codes biases, norms, buffers, small tensors.

    Payload: varint length of the first part, the first part, the second.
    """

    id: ClassVar[str] = "by-role"
    dtype: ClassVar[str] = "float32"
    weights: Codec = field(default_factory=Float16)
    rest: Codec = field(default_factory=Float16)
    small: int = 256

    def __post_init__(self) -> None:
        if self.small < 0:
            raise ConfigError("by-role.small", self.small, "at least 0 entries")
        require("by-role.weights", self.weights, self.dtype)
        require("by-role.rest", self.rest, self.dtype)

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Both parts, each with the layout of its tensors."""
        x = checked(x, np.float32, context)
        first, second = self._split(context)
        weights = self.weights.encode(x[first], _part(context, first))
        return varint.write([len(weights)]) + weights + self.rest.encode(x[~first], _part(context, second))

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) float32."""
        return dense(self.entries(payload, context))

    def entries(self, payload: bytes, context: Context) -> Vector:
        """The kept entries of the first part and all of the second, if that is less than the whole."""
        reader, (first, second) = varint.Reader(payload), self._split(context)
        weights = trace.nested("weights", self.weights, reader.sized(), _part(context, first), read)
        rest = trace.nested("rest", self.rest, reader.rest(), _part(context, second))
        if isinstance(weights, Entries):
            places = np.concatenate([np.flatnonzero(first)[weights.places], np.flatnonzero(second)])
            return Entries(context.layout.size, places, np.concatenate([weights.values, rest]))
        x = np.empty(context.layout.size, dtype=np.float32)
        x[first], x[second] = weights, rest
        return x

    def _split(self, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """Which entries go where: two flags (n,) bool."""
        large = [entry.role == "weight" and entry.size >= self.small for entry in context.layout]
        first = np.repeat(np.array(large, dtype=bool), context.layout.sizes)
        return first, ~first


def _part(context: Context, chosen: np.ndarray) -> Context:
    """What both ends know of the chosen tensors alone."""
    entries = [entry for entry in context.layout if entry.size and chosen[entry.offset]]
    layout = Layout.of({e.name: e.shape for e in entries}, {e.name: e.role for e in entries})
    return Context(layout, None if context.shared is None else context.shared[chosen], context.seed)
