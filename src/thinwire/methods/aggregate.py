"""How the server makes one change out of the clients' changes: streaming, in the order in which they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from thinwire.layout import Layout
from thinwire.methods.base import Update

Rule = Callable[[Iterable[Update], Layout], np.ndarray | None]


def mean(updates: Iterable[Update], layout: Layout) -> np.ndarray | None:
    """Σ nₖ Δₖ / Σ nₖ.  # (n,) float32; None without updates."""
    total, samples = np.zeros(layout.size), 0
    for update in updates:
        total += np.multiply(update.value, update.samples, dtype=np.float64)
        samples += update.samples
    return (total / samples).astype(np.float32) if samples else None


def majority(updates: Iterable[Update], layout: Layout) -> np.ndarray | None:
    """sign(Σ sign Δₖ) times the mean magnitude of the tensor over all clients.  # (n,) float32; None without updates.

    One vote a client, whatever its samples. Reference: Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD with
    Majority Vote", ICLR 2019. Differs from it: the step has the size of the clients' changes, not a server rate.
    """
    votes, sizes, clients = np.zeros(layout.size), np.zeros(len(layout)), 0
    for update in updates:
        votes += np.sign(update.value)
        sizes += [np.abs(update.value[entry.slice]).mean(dtype=np.float64) if entry.size else 0 for entry in layout]
        clients += 1
    scale = np.repeat(sizes, layout.sizes) / max(clients, 1)
    return (np.sign(votes) * scale).astype(np.float32) if clients else None


RULES: dict[str, Rule] = {"mean": mean, "majority": majority}
