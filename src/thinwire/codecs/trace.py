"""What a payload consists of: a decoder names each piece as it cuts it off, and whoever asks is told names and bytes.

Nobody asks while a run decodes: then `cut` is one look at a context variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinwire.codecs.base import Codec, Context
from thinwire.errors import DecodeError


@dataclass(frozen=True)
class Part:
    """A piece of a payload. `path`: the names of the pieces around it, then its own. `note`: the codecs that read it.

    A piece that others make up has `leaf` false; its bytes are theirs. The leaves together are the payload.
    """

    path: tuple[str, ...]
    bytes: int
    note: str = ""
    leaf: bool = True


@dataclass
class _Piece:
    """A part under construction, and the pieces inside it by name."""

    bytes: int = 0
    codecs: dict[str, None] = field(default_factory=dict)  # an ordered set
    inner: dict[str, _Piece] = field(default_factory=dict)

    def add(self, name: str, count: int) -> _Piece:
        """Grow the inner piece of this name: what is read in turns (a table a tensor) is one part."""
        piece = self.inner.setdefault(name, _Piece())
        piece.bytes += count
        return piece

    def flat(self, path: tuple[str, ...]) -> Iterator[Part]:
        """The inner pieces that have bytes, depth first; one that is a single plain piece inside is that piece."""
        for name, piece in self.inner.items():
            inner = list(piece.flat((*path, name)))
            if len(inner) == 1 and inner[0].bytes == piece.bytes:
                inner = []
            if piece.bytes:
                yield Part((*path, name), piece.bytes, ", ".join(piece.codecs), leaf=not inner)
                yield from inner


_ASKED: ContextVar[_Piece | None] = ContextVar("asked", default=None)


def cut(name: str, count: int) -> None:
    """Name the next `count` bytes of the payload that is being decoded."""
    if (piece := _ASKED.get()) is not None:
        piece.add(name, count)


def _decode(codec: Codec, payload: bytes, context: Context) -> np.ndarray:
    return codec.decode(payload, context)


def nested(
    name: str, codec: Codec, payload: bytes, context: Context, read: Callable[[Codec, bytes, Context], Any] = _decode
) -> Any:
    """Decode (or `read`) a payload inside another one; what its codec names stands below `name`."""
    if (piece := _ASKED.get()) is None:
        return read(codec, payload, context)
    inside = piece.add(name, len(payload))
    token = _ASKED.set(inside)
    try:
        return through(codec, payload, context, read)
    finally:
        _ASKED.reset(token)


def through(
    codec: Codec, payload: bytes, context: Context, read: Callable[[Codec, bytes, Context], Any] = _decode
) -> Any:
    """Decode a payload that is another codec's from its first byte to its last: its pieces stand where they stood."""
    if (piece := _ASKED.get()) is not None:
        piece.codecs[codec.id] = None
    return read(codec, payload, context)


def traced(decode: Callable[[], object]) -> list[Part]:
    """The pieces that are cut off while `decode` runs, depth first."""
    whole = _Piece()
    token = _ASKED.set(whole)
    try:
        decode()
    finally:
        _ASKED.reset(token)
    return list(whole.flat(()))


def parts(codec: Codec, payload: bytes, context: Context) -> list[Part]:
    """The pieces of a payload, depth first; the leaves add up to it.

    DecodeError for a payload that the codec refuses.

    >>> from thinwire.codecs import Mask, TopK
    >>> from thinwire.layout import Layout
    >>> context = Context(Layout.of({"fc": (100, 10)}))
    >>> payload = TopK().encode(np.arange(1000, dtype=np.float32), context)
    >>> [(".".join(part.path), part.bytes) for part in parts(TopK(), payload, context) if part.leaf]
    [('header', 1), ('positions.header', 1), ('positions.ones per class', 1), ('positions.bits', 8), ('values', 20)]
    """
    found = traced(lambda: through(codec, payload, context))
    named = sum(part.bytes for part in found if part.leaf)
    if named != len(payload):
        raise DecodeError(f"{codec.id}: {named} bytes of {len(payload)} have a name")
    return found
