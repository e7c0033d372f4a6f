"""Layout: how one flat vector maps to named tensors. Both ends hold it; only its digest travels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import prod

import numpy as np

from thinwire.errors import ConfigError

ROLES = ("weight", "bias", "norm", "buffer")


@dataclass(frozen=True)
class Entry:
    """One named tensor in the flat vector: entries `offset` to `offset + size`, row-major."""

    name: str
    shape: tuple[int, ...]
    role: str
    offset: int

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def slice(self) -> slice:
        """Where the tensor stands in the flat vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """Names, shapes, roles and offsets of the tensors that make up one flat vector.

    `kept` is the digest of a mask when the layout was restricted to a mask's kept entries, else empty.

    >>> layout = Layout.of({"fc.weight": (3, 2), "fc.bias": (3,)})
    >>> layout.size, [entry.role for entry in layout]
    (9, ['weight', 'bias'])
    """

    entries: tuple[Entry, ...]
    kept: str = ""

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]], roles: Mapping[str, str] | None = None) -> Layout:
        """Lay tensors out in the order given. A role that is not given: 'weight' from two axes on, else 'bias'."""
        entries, offset = [], 0
        for name, shape in shapes.items():
            if any(int(n) != n or n < 0 for n in shape):
                raise ConfigError(f"shape of {name}", tuple(shape), "sizes are whole numbers from 0 on")
            role = (roles or {}).get(name) or ("weight" if len(shape) >= 2 else "bias")
            if role not in ROLES:
                raise ConfigError(f"role of {name}", role, f"one of {', '.join(ROLES)}")
            entry = Entry(name, tuple(int(n) for n in shape), role, offset)
            entries.append(entry)
            offset += entry.size
        return cls(tuple(entries))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def size(self) -> int:
        """Number of elements of the flat vector."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Elements per tensor, in order."""
        return np.array([entry.size for entry in self.entries], dtype=np.int64)  # (tensors,)

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes of SHA-256 over names, shapes, roles, order and the mask: what travels in a frame."""
        described = [[entry.name, list(entry.shape), entry.role] for entry in self.entries]
        text = json.dumps([described, self.kept], separators=(",", ":"), ensure_ascii=True)
        return sha256(text.encode()).digest()[:8]

    def restrict(self, mask: np.ndarray) -> Layout:
        """Layout of the entries that a 0/1 mask of shape (size,) keeps; every tensor becomes one flat run."""
        if mask.shape != (self.size,):
            raise ConfigError("mask", mask.shape, f"shape ({self.size},), one flag an element of the layout")
        keep = mask.astype(bool)
        restricted = Layout.of(
            {entry.name: (int(keep[entry.slice].sum()),) for entry in self.entries},
            {entry.name: entry.role for entry in self.entries},
        )
        packed = np.packbits(keep, bitorder="little").tobytes()
        return Layout(restricted.entries, sha256(self.digest + packed).hexdigest()[:16])
