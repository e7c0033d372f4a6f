"""What a codec is: a frozen value with an id and a configuration, and no memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class Context:
    """What both ends already know.

    layout: names, shapes, roles and offsets of the flat vector. shared: (n,) an array both ends hold bit for bit.
    seed: shared randomness, a function of (run seed, round, client, purpose). most: the largest of the whole numbers,
    or how many ones a mask has at most; a decoder refuses more before it spends time on them.
    """

    layout: Layout
    shared: np.ndarray | None = None
    seed: int = 0
    most: int | None = None

    def bound(self, least: int) -> int:
        """The lower of `most`, where it is known, and another upper bound."""
        return least if self.most is None else min(self.most, least)


CARRIED = {"float32": "updates", "uint8": "masks", "uint32": "counts"}  # unless a codec says otherwise


@runtime_checkable
class Codec(Protocol):
    """Array to bytes and back. `id` names a byte format: changed bytes, new id. Every field has a default.

    A class may have `carries`, what its arrays are: updates (signed weights), masks, counts, or magnitudes, which have
    no sign; without it the dtype decides. `exact`: true if every bit comes back. `missed`: see `codecs.missed`.
    """

    id: ClassVar[str]
    dtype: ClassVar[str]  # of the arrays it takes and gives: float32 (weights), uint8 (masks), uint32 (votes)

    def __hash__(self) -> int:
        """Of the value: what is derived from a codec is derived once."""

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """Payload of an (n,) array, n = context.layout.size."""

    def decode(self, payload: bytes, context: Context) -> np.ndarray:
        """(n,) array; a hostile payload raises DecodeError or gives an array of the right size, nothing else."""


def carries(codec: Codec | type[Codec]) -> str:
    """What a codec is for: updates, masks, counts or magnitudes."""
    return getattr(codec, "carries", None) or CARRIED.get(codec.dtype, codec.dtype)


def checked(x: np.ndarray, dtype: Any, context: Context) -> np.ndarray:
    """The array itself, contiguous, if it has the dtype and the layout's size; else ConfigError."""
    if x.dtype != dtype or x.shape != (context.layout.size,):
        allowed = f"a {np.dtype(dtype)} array of shape ({context.layout.size},)"
        raise ConfigError("x", f"{x.dtype} array of shape {x.shape}", allowed)
    return np.ascontiguousarray(x)
