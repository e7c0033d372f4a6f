"""Top-k: the largest entries and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from thinwire.codecs import trace, varint
from thinwire.codecs.base import Codec, Context, checked
from thinwire.codecs.checks import finite
from thinwire.codecs.config import require
from thinwire.codecs.dense import Float16
from thinwire.codecs.entries import Entries
from thinwire.codecs.mask import Mask
from thinwire.codecs.selection import groups, how_many, largest, magnitude_classes
from thinwire.errors import ConfigError, DecodeError, one_of

SCOPES = ("tensor", "global")


@dataclass(frozen=True)
class TopK:
    """Keeps the fraction `keep` of entries largest in magnitude, ⌊keep · n + ½⌋ of them; the rest become 0.

    Where fewer entries than that differ from 0 these alone are kept, so that 0 comes back as 0 through any `values`.

    scope: of every tensor, or of the whole vector (`global`). positions: codec of the mask; `mask` conditions it on
    classes of |shared|, exponent and two mantissa bits. values: codec of the kept entries, whose layout is the
    layout restricted to the mask. Ties go to the lower index.

    Payload: varint length of the positions, these, the values.
    """

    id: ClassVar[str] = "topk"
    dtype: ClassVar[str] = "float32"
    keep: float = 0.01
    scope: str = "tensor"
    values: Codec = field(default_factory=Float16)
    positions: Codec = field(default_factory=Mask)

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ConfigError("topk.keep", self.keep, "above 0, at most 1")
        if self.scope not in SCOPES:
            raise ConfigError("topk.scope", self.scope, one_of(self.scope, SCOPES))
        require("topk.values", self.values, "float32")
        require("topk.positions", self.positions, "uint8")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Positions and values of the largest entries of (n,) float32."""
        x = finite(checked(x, np.float32, context))
        mask = largest(x, self.keep, self.scope, context.layout) * (x != 0).astype(np.uint8)
        positions = self.positions.encode(mask, _positions_context(context))
        values = self.values.encode(x[mask.astype(bool)], _values_context(mask, context))
        return varint.write([len(positions)]) + positions + values

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) float32, zero where nothing was kept; DecodeError if more entries are marked than may be kept."""
        return self.entries(payload, context).dense()

    def entries(self, payload: bytes, context: Context) -> Entries:
        """What was kept."""
        reader, spans = varint.Reader(payload), groups(context.layout, self.scope)
        most = [how_many(self.keep, size) for _, size in spans]
        known = replace(_positions_context(context), most=sum(most))
        mask = trace.nested("positions", self.positions, reader.sized(), known)
        for (span, size), kept in zip(spans, most, strict=True):
            if (marked := int(mask[span].sum(dtype=np.int64))) > kept:
                raise DecodeError(f"topk: {marked} entries of {size} are marked, at most {kept} are kept")
        values = trace.nested("values", self.values, reader.rest(), _values_context(mask, context))
        return Entries(mask.size, np.flatnonzero(mask), values)


def _positions_context(context: Context) -> Context:
    return Context(context.layout, magnitude_classes(context.shared), context.seed)


def _values_context(mask: np.ndarray, context: Context) -> Context:
    shared = None if context.shared is None else context.shared[mask.astype(bool)]
    return Context(context.layout.restrict(mask), shared, context.seed)
