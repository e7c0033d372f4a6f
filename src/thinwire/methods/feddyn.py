"""FedDyn: dynamic regularisation, so that the clients' optima and the server's are the same.

Reference: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, arXiv 2111.04263.

Nothing but the change travels: a client's gradient memory and the server's are functions of the changes alone, and both
ends use the change as the server decodes it. Differs from the paper: any codec, both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from thinwire.errors import ConfigError, QuorumError
from thinwire.methods.base import ClientState, Method, Setup, Update
from thinwire.methods.fedavg import FedAvg, Global, Options, State, build
from thinwire.methods.server import Mean
from thinwire.train import Correction
from thinwire.versions import Held


@dataclass(frozen=True)
class FedDynOptions(Options):
    """FedAvg's settings and alpha: strength of the regulariser."""

    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1e6:
            raise ConfigError("method.alpha", self.alpha, "above 0")


@dataclass(frozen=True)
class FedDyn(FedAvg):
    """FedAvg with a gradient memory gᵢ on every client and h on the server."""

    options: FedDynOptions
    tracks: ClassVar[bool] = True

    def init(self) -> State:
        """h = 0."""
        return replace(super().init(), memory=(np.zeros_like(self.start),))

    def client_init(self, client: int) -> ClientState:
        """gᵢ = 0."""
        return super().client_init(client) | {"gradient": np.zeros_like(self.start)}

    def correction(self, held: Held[Global], state: ClientState) -> Correction:
        """−gᵢ + α (w − x): the loss gains −⟨gᵢ, w⟩ + α/2 · ‖w − x‖²."""
        return Correction(
            offset=-self.on_parameters(state["gradient"]),
            anchor=self.shared_parameters().clone(),
            strength=self.options.alpha,
        )

    def remember(self, held: Held[Global], state: ClientState, sent: np.ndarray, samples: int) -> ClientState:
        """gᵢ ← gᵢ − α Δᵢ."""
        return {"gradient": state["gradient"] - np.float32(self.options.alpha) * sent}

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """h ← h − α/N · Σ Δᵢ; x ← x + mean Δᵢ − h/α, clients weighing the same, N of all clients."""
        asked = [0]
        change = self.setup.aggregate(_alike(updates, asked), self.flat.layout)
        if change is None:
            raise QuorumError("no update is left")
        alpha, share = self.options.alpha, asked[0] / max(self.setup.clients, asked[0])
        memory = state.memory[0] - np.float32(alpha * share) * change
        return self.advance(state, change - memory / np.float32(alpha), (memory,))


def _alike(updates: Iterable[Update], count: list[int]) -> Iterable[Update]:
    """The updates, each of one sample; `count` counts them."""
    for update in updates:
        count[0] += 1
        yield replace(update, samples=1)


def feddyn(setup: Setup, options: Mapping[str, Any]) -> Method:
    """FedDyn over a set-up."""
    if setup.server != Mean():
        raise ConfigError("server.optimizer", setup.server, "mean for feddyn: the server's step is the algorithm's own")
    return build("feddyn", FedDyn, FedDynOptions, setup, options)
