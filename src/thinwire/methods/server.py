"""Server optimisers: from the clients' aggregated change to the change that the server makes.

The aggregate Δ serves as the negative gradient of an optimiser on the server. References: FedAvgM: Hsu, Qi, Brown,
arXiv 1909.06335. FedAdam, FedYogi, FedAdagrad: Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
arXiv 2003.00295, Algorithm 2 (no bias correction, v starts at τ²).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from thinwire.errors import ConfigError, one_of
from thinwire.methods import aggregate
from thinwire.settings import record

Memory = tuple[np.ndarray, ...]  # float32 arrays (n,) that the server keeps between rounds


@dataclass(frozen=True)
class Mean:
    """x ← x + lr · Δ, Δ the mean of the changes by sample count."""

    lr: float = 1.0
    rule: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        _positive(self, "lr")

    def init(self, size: int) -> Memory:
        """Nothing to remember."""
        return ()

    def step(self, change: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
        """The server's change (n,) and what it remembers."""
        return (change if self.lr == 1 else np.float32(self.lr) * change), memory


@dataclass(frozen=True)
class Majority(Mean):
    """x ← x + lr · Δ, Δ the majority of the clients' signs times their mean magnitude."""

    rule: ClassVar[str] = "majority"


@dataclass(frozen=True)
class FedAvgM:
    """v ← momentum · v + Δ; x ← x + lr · v."""

    lr: float = 1.0
    momentum: float = 0.9
    rule: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        _positive(self, "lr")
        _fraction(self, "momentum")

    def init(self, size: int) -> Memory:
        """v = 0."""
        return (np.zeros(size, np.float32),)

    def step(self, change: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
        """The server's change (n,) and v."""
        velocity = np.float32(self.momentum) * memory[0] + change
        return np.float32(self.lr) * velocity, (velocity,)


@dataclass(frozen=True)
class FedAdam:
    """m ← β₁m + (1 − β₁)Δ; v ← β₂v + (1 − β₂)Δ²; x ← x + lr · m / (√v + τ)."""

    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    rule: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        _positive(self, "lr", "tau")
        _fraction(self, "beta1", "beta2")

    def init(self, size: int) -> Memory:
        """m = 0, v = τ²."""
        return np.zeros(size, np.float32), np.full(size, self.tau**2, np.float32)

    def step(self, change: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
        """The server's change (n,), m and v."""
        mean = np.float32(self.beta1) * memory[0] + np.float32(1 - self.beta1) * change
        square = self.second(memory[1], change * change)
        return np.float32(self.lr) * mean / (np.sqrt(square) + np.float32(self.tau)), (mean, square)

    def second(self, square: np.ndarray, new: np.ndarray) -> np.ndarray:
        """v after this round."""
        return np.float32(self.beta2) * square + np.float32(1 - self.beta2) * new


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """As FedAdam with v ← v − (1 − β₂) Δ² sign(v − Δ²)."""

    def second(self, square: np.ndarray, new: np.ndarray) -> np.ndarray:
        """v after this round."""
        return square - np.float32(1 - self.beta2) * new * np.sign(square - new)


@dataclass(frozen=True)
class FedAdagrad(FedAdam):
    """As FedAdam with v ← v + Δ² (and m = Δ by default)."""

    beta1: float = 0.0

    def second(self, square: np.ndarray, new: np.ndarray) -> np.ndarray:
        """v after this round."""
        return square + new


DEFENCES = (
    "aggregate",
    *aggregate.FIELDS,
    "max_update_norm",
    "max_votes_against",
    "max_samples",
)  # of `[server]`, no optimiser's
ServerOptimizer = Mean | FedAvgM | FedAdam
SERVERS: dict[str, type[ServerOptimizer]] = {
    "mean": Mean, "majority": Majority, "fedavgm": FedAvgM,
    "fedadam": FedAdam, "fedyogi": FedYogi, "fedadagrad": FedAdagrad,
}  # fmt: skip


def from_config(settings: Mapping[str, Any]) -> ServerOptimizer:
    """The server optimiser that `[server]` describes: `optimizer`, a key of SERVERS, and its fields."""
    fields = {name: value for name, value in settings.items() if name not in DEFENCES}
    name = fields.pop("optimizer", "mean")
    if not isinstance(name, str) or name not in SERVERS:
        raise ConfigError("server.optimizer", name, one_of(name, SERVERS))
    return record(SERVERS[name], fields, "server", others=("optimizer", *DEFENCES))


def vote_bound(settings: Mapping[str, Any]) -> float:
    """`[server] max_votes_against`: the largest share of a mask's votes against the counts; 1 unless told."""
    bound = settings.get("max_votes_against", 1.0)
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound <= 1:
        raise ConfigError("server.max_votes_against", bound, "above 0, at most 1")
    return float(bound)


def norm_bound(settings: Mapping[str, Any]) -> float:
    """`[server] max_update_norm`: the largest ‖Δₖ‖₂ of a client's decoded change; infinite unless told."""
    bound = settings.get("max_update_norm", math.inf)
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
        raise ConfigError("server.max_update_norm", bound, "above 0")
    return float(bound)


def sample_bound(settings: Mapping[str, Any]) -> int | None:
    """`[server] max_samples`: the most samples that a client may claim; None where it is not set."""
    bound = settings.get("max_samples")
    if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or not 0 < bound < 2**32):
        raise ConfigError("server.max_samples", bound, "a whole number from 1 on")
    return bound


def _positive(optimizer: ServerOptimizer, *names: str) -> None:
    for name in names:
        if not 0 < (value := getattr(optimizer, name)) < 1e6:
            raise ConfigError(f"server.{name}", value, "above 0")


def _fraction(optimizer: ServerOptimizer, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(optimizer, name)) < 1:
            raise ConfigError(f"server.{name}", value, "0 to 1, 1 excluded")
