"""SparsyFed, simplified: weights re-parameterised so that small ones stay small, and pruned before they are sent.

Reference: Guastella et al., "SparsyFed: Sparse Adaptive Federated Training", ICLR 2025, arXiv 2504.05153; the
re-parameterisation: Schwarz et al., "Powerpropagation", NeurIPS 2021.

A client trains θ with w = θ |θ|^(β − 1), then keeps the density · w largest |w| over all layers. Its frame holds that
mask, coded against the support of the weights received, and the change of the kept weights; the server knows the change
of the others: they became 0. Updates are averaged by samples as in FedAvg.

Differs from the paper: activations are not pruned in the backward pass (it saves work, not bytes); weights are pruned
globally, without its layer-wise schedule; w is averaged and θ taken anew each round, where a public copy of its code
averages θ; the server's average is not pruned, and the downlink is FedAvg's. As under any β above 1, a weight that is
exactly 0 has no gradient: with an exact downlink, what all clients pruned does not come back (a coded one leaves
residues of its error there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Context, Mask, at, tag, trace
from thinwire.errors import ConfigError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import base, selection
from thinwire.methods.base import ClientState, Data, Method, Setup, Update
from thinwire.methods.fedavg import Global, Options, State, build, sound, within
from thinwire.methods.sparse import Prunable
from thinwire.parameterisations import Dense
from thinwire.tensors import FlatModel
from thinwire.train import fit
from thinwire.versions import Held


@dataclass(frozen=True)
class SparsyFedOptions(Options):
    """density: fraction of the weights that a client sends. beta: β, 1 trains the weights themselves."""

    density: float = 0.1
    beta: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, good, allowed in (
            ("density", 0 < self.density <= 1, "above 0, at most 1"),
            ("beta", 1 <= self.beta <= 4, "1 to 4"),
            ("fine_tune", not self.fine_tune, "0 for sparsyfed"),
        ):
            if not good:
                raise ConfigError(f"method.{name}", getattr(self, name), allowed)


class Powers(Dense):
    """Trains θ (P,): w = θ |θ|^(β − 1) where `places` says so, w = θ elsewhere."""

    def __init__(self, flat: FlatModel, places: np.ndarray, beta: float) -> None:
        super().__init__(flat)
        exponents = np.where(places, beta, 1.0).astype(np.float32)
        self.beta = torch.from_numpy(exponents).to(flat.parameters.device)
        self.trained = torch.zeros_like(flat.parameters)
        self.trained.grad = torch.zeros_like(flat.parameters)

    def start(self) -> None:
        """θ of the weights that the model holds."""
        weights = self.flat.parameters
        self.trained.copy_(weights.sign() * weights.abs().pow(1 / self.beta))

    def push(self) -> None:
        """Make the weights; clear their gradient."""
        super().push()
        self.flat.parameters.copy_(self.trained.sign() * self.trained.abs().pow(self.beta))

    def pull(self) -> None:
        """∂/∂θ = β |θ|^(β − 1) ∂/∂w."""
        assert self.trained.grad is not None
        slope = self.beta * self.trained.abs().pow(self.beta - 1)
        torch.mul(self.flat.gradient, slope, out=self.trained.grad)


class SparsyFed(Prunable):
    """FedAvg of pruned clients."""

    options: SparsyFedOptions

    @cached_property
    def powers(self) -> Powers:
        """The trainee."""
        return Powers(self.flat, self.places, self.options.beta)

    def _against(self, weights: np.ndarray) -> Context:
        """What a mask is coded with: a probability for each tensor, and for what was 0 and was not."""
        tensors = np.repeat(np.arange(len(self.weights), dtype=np.uint32), self.weights.sizes)
        return Context(self.weights, 2 * tensors + (weights[self.places] != 0))

    def _values(self, mask: np.ndarray, change: np.ndarray | None, round: int, client: int) -> Context:
        shared = None if change is None else change[mask.astype(bool)]
        return Context(self.flat.layout.restrict(mask), shared, rng.integer(self.setup.seed, round, client, "uplink"))

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """Train θ, prune w, send mask and change."""
        round, received = held.version + 1, held.value.weights
        self.load(received, state)
        self.powers.start()
        order = rng.generator(self.setup.seed, round, data.client, "batches")
        metrics = fit(self.powers, data.x, data.y, self.setup.local, round, order)
        self.powers.push()
        weights = self.flat.read()
        chosen = selection.select(np.abs(weights[self.places]), self.weights, self.options.density)
        mask = selection.whole(self.flat.layout, chosen)
        context = self._values(mask, held.value.change, round, data.client)
        payload = at(self.uplink, held.version).encode((weights - received)[mask.astype(bool)], context)
        section = Section.VALUES if context.shared is None else Section.VALUES_SHARED
        sections = ((Section.MASK, Mask().encode(chosen, self._against(received))), (section, payload))
        layout, samples = self.flat.layout.digest, len(data.y)
        frame = Frame(Kind.UPDATE, self.setup.run, held.version, tag(self.uplink), layout, sections, samples=samples)
        return frames.write(frame), {}, metrics

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change (n,): that of its kept weights, and minus the weight where it kept none."""
        version, layout = state.history.version, self.flat.layout.digest
        frame = base.read_update(self.setup, self.uplink, version, layout, message)
        chosen = trace.nested("mask", Mask(), frame.one(Section.MASK), self._against(state.weights))
        mask = selection.whole(self.flat.layout, chosen)
        values = replace(frame, sections=tuple(part for part in frame.sections if part[0] != Section.MASK))
        shared = bool(values.all(Section.VALUES_SHARED))
        context = self._values(mask, state.change if shared else None, version + 1, client)
        payload = values.sole(Section.VALUES_SHARED if shared else Section.VALUES)
        change = -state.weights
        change[mask.astype(bool)] = sound(at(self.uplink, version).decode(payload, context), "update")
        within(change, self.setup.max_update_norm)
        return Update(frame.samples, change)

    def mirror(self, held: Held[Global]) -> State | None:
        """As FedAvg's, whose weights `read` looks at."""
        return super().mirror(held)


def sparsyfed(setup: Setup, options: Mapping[str, Any]) -> Method:
    """SparsyFed over a set-up."""
    if setup.parameterisation:
        raise ConfigError("parameterisation.name", setup.parameterisation.id, "dense for sparsyfed: it prunes weights")
    if setup.error_feedback:
        raise ConfigError("uplink.error_feedback", True, "false for sparsyfed: what is pruned is not owed")
    return build("sparsyfed", SparsyFed, SparsyFedOptions, setup, options)
