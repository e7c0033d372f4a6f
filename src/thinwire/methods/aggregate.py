"""How the server makes one change out of the clients' changes.

`Mean` and `majority` stream. The robust rules see all changes at once: cohort · n · 4 bytes, and 8 bytes a client for
each of `BLOCK` coordinates beside them. They count every client alike, whatever its samples: a sample count is the
client's own claim. References: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018 (median, Definition 1; trimmed mean, Definition 2). Blanchard, El Mhamdi,
Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (Krum and
Multi-Krum, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thinwire.codecs.entries import add, add_signs, magnitudes
from thinwire.errors import ConfigError, QuorumError, one_of
from thinwire.layout import Layout
from thinwire.settings import record

if TYPE_CHECKING:
    from thinwire.methods.base import Update

BLOCK = 2**14  # coordinates of all clients that are looked at together
FIELDS = ("trim", "byzantine")  # of `[server]`, that belong to a rule


def majority(updates: Iterable[Update], layout: Layout) -> np.ndarray | None:
    """sign(Σ sign Δₖ) times the mean magnitude of the tensor over all clients.  # (n,) float32; None without updates.

    One vote a client, whatever its samples. Reference: Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD with
    Majority Vote", ICLR 2019. Differs from it: the step has the size of the clients' changes, not a server rate.
    """
    votes, sizes, clients = np.zeros(layout.size), np.zeros(len(layout)), 0
    for update in updates:
        add_signs(votes, update.change)
        sizes += magnitudes(update.change, layout)
        clients += 1
    scale = np.repeat(sizes / np.maximum(layout.sizes, 1), layout.sizes) / max(clients, 1)
    return (np.sign(votes) * scale).astype(np.float32) if clients else None


@dataclass(frozen=True)
class Mean:
    """Σ nₖ Δₖ / Σ nₖ, streaming."""

    def check(self, cohort: int) -> None:
        """Any cohort will do."""

    def __call__(self, updates: Iterable[Update], layout: Layout) -> np.ndarray | None:
        """The change (n,) float32; None without updates."""
        total, samples = np.zeros(layout.size), 0
        for update in updates:
            add(total, update.change, update.samples)
            samples += update.samples
        return (total / samples).astype(np.float32) if samples else None


class Robust(Mean):
    """A rule over all changes of a round at once."""

    def __call__(self, updates: Iterable[Update], layout: Layout) -> np.ndarray | None:
        """The change (n,) float32; None without updates."""
        changes = [update.value for update in updates]
        return self.of(changes) if changes else None

    def of(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """One change (n,) float32 of those of K clients, each (n,) float32."""
        raise NotImplementedError


@dataclass(frozen=True)
class Median(Robust):
    """The median of every coordinate; right while less than half of the clients lie."""

    def of(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """medianₖ Δₖ."""
        return _by_block(changes, lambda block: np.median(block, axis=0))


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The mean of every coordinate without its ⌊trim · K⌋ smallest and as many largest values."""

    trim: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.trim < 0.5:
            raise ConfigError("server.trim", self.trim, "above 0, below 0.5: it is cut at each end")

    def check(self, cohort: int) -> None:
        """ConfigError when nobody would be cut."""
        if not self.cut(cohort):
            raise ConfigError("server.trim", self.trim, f"at least 1/{cohort}: else none of {cohort} clients is cut")

    def cut(self, clients: int) -> int:
        """Values cut at each end."""
        return int(self.trim * clients + 1e-9)  # 0.29 * 100 is a little below 29

    def of(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of what is between the ends."""
        cut, clients = self.cut(len(changes)), len(changes)
        return _by_block(changes, lambda block: np.sort(block, axis=0)[cut : clients - cut].mean(0, dtype=np.float64))


@dataclass(frozen=True)
class Krum(Robust):
    """The one change whose K − f − 2 nearest others are nearest to it; f = `byzantine` clients may lie, K ≥ 2f + 3."""

    byzantine: int = 1

    def __post_init__(self) -> None:
        if self.byzantine < 0:
            raise ConfigError("server.byzantine", self.byzantine, "a number of clients from 0 on")

    @property
    def least(self) -> int:
        """Changes that the rule needs."""
        return 2 * self.byzantine + 3

    def check(self, cohort: int) -> None:
        """ConfigError when so many liars are too many for a round."""
        if cohort < self.least:
            most = f"at most {(cohort - 3) // 2}" if cohort >= 3 else "nothing"
            allowed = f"{most} with {cohort} clients a round: there must be 2 · byzantine + 3 of them"
            raise ConfigError("server.byzantine", self.byzantine, allowed)

    def chosen(self, clients: int) -> int:
        """How many changes the mean is taken of."""
        return 1

    def of(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of the changes with the least Σ of squared distances; of equal ones, the first in the cohort."""
        if len(changes) < self.least:
            raise QuorumError(f"{len(changes)} updates, {self.least} needed with server.byzantine = {self.byzantine}")
        near = np.sort(_distances(changes), axis=1)[:, 1 : len(changes) - self.byzantine - 1]  # without itself
        best = np.argsort(near.sum(axis=1), kind="stable")[: self.chosen(len(changes))]
        return _by_block([changes[number] for number in sorted(best)], lambda block: block.mean(0, dtype=np.float64))


class MultiKrum(Krum):
    """The mean of the K − f changes that Krum would choose first."""

    def chosen(self, clients: int) -> int:
        """All but as many as may lie."""
        return clients - self.byzantine


AGGREGATES: dict[str, type[Mean]] = {
    "mean": Mean, "median": Median, "trimmed_mean": TrimmedMean, "krum": Krum, "multi_krum": MultiKrum,
}  # fmt: skip


def from_config(settings: Mapping[str, Any]) -> Mean:
    """The rule that `[server]` describes: `aggregate`, a key of AGGREGATES, and its field."""
    name = settings.get("aggregate", "mean")
    if not isinstance(name, str) or name not in AGGREGATES:
        raise ConfigError("server.aggregate", name, one_of(name, AGGREGATES))
    return record(AGGREGATES[name], {field: settings[field] for field in FIELDS if field in settings}, "server")


def _by_block(changes: Sequence[np.ndarray], rule: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What a rule makes of every block (K, b) of coordinates.  # (n,) float32"""
    result = np.empty(changes[0].size, dtype=np.float32)
    for place, block in _blocks(changes):
        result[place] = rule(block)
    return result


def _blocks(changes: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, changes[0].size, BLOCK):
        place = slice(start, start + BLOCK)
        yield place, np.stack([change[place] for change in changes])


def _distances(changes: Sequence[np.ndarray]) -> np.ndarray:
    """‖Δᵢ − Δⱼ‖²; a change is nearest to itself.  # (K, K)"""
    gram = np.zeros((len(changes), len(changes)))
    for _, block in _blocks(changes):
        wide = block.astype(np.float64)
        gram += wide @ wide.T
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares - 2 * gram, 0)
    np.fill_diagonal(distances, -1)
    return distances
