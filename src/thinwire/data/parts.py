"""The clients' samples as row numbers: dealt once and kept, or drawn anew whenever a client is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinwire.rng import generator


class Parts(Sequence[np.ndarray]):
    """Ascending row numbers (size,) int64 by client. Asking for one client makes no other's."""

    def __getitem__(self, client: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def size(self, client: int) -> int:
        """How many samples a client has."""
        return len(self[client])

    @property
    def holders(self) -> Sequence[int]:
        """The clients that have samples, in order."""
        return self.where(bool)

    def where(self, fits: Callable[[int], bool]) -> Sequence[int]:
        """The clients whose number of samples is such, in order."""
        return [client for client in range(len(self)) if fits(self.size(client))]


class Dealt(Parts):
    """A data set divided: every row has one client."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = rows

    def __getitem__(self, client: Any) -> Any:
        return self.rows[client]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Drawn(Parts):
    """A population of any size: client i has `each` of `samples` rows, drawn without replacement by (seed, i).

    Two clients may have the same row. Nothing is kept: a client's rows are drawn when they are asked for.
    """

    samples: int
    each: int
    clients: int
    seed: int

    def __getitem__(self, client: Any) -> Any:
        if not 0 <= client < self.clients:
            raise IndexError(client)
        draw = generator(self.seed, client=client, purpose="drawn")
        return np.sort(draw.choice(self.samples, self.each, replace=False))

    def __len__(self) -> int:
        return self.clients

    def size(self, client: int) -> int:
        """The same for every client."""
        return self.each

    def where(self, fits: Callable[[int], bool]) -> Sequence[int]:
        """All of them, or none: they have equally many."""
        return range(self.clients if fits(self.each) else 0)
