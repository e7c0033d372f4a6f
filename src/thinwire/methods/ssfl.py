"""SSFL: one sparse subnetwork, found before training; only its weights are trained and sent.

Reference: Ohib, Thapaliya, Dziugaite, Liu, Calhoun, Plis, "SSFL: Discovering Sparse Unified Subnetworks at
Initialization for Efficient Federated Learning", TMLR 2026, arXiv 2405.09037, Algorithm 1.

Clients answer the first broadcast with s_k = |g ∘ w₀| on their weights; s = Σ nₖ sₖ / Σ nₖ; the mask keeps the
density · w largest over all layers. It travels once, range-coded with one probability a layer. From then on it is part
of what both ends know (`CommonMask`).

Differs from the paper: exactly ⌊density · w + ½⌋ weights are kept, ties to the lower index, where its code keeps all
ties; saliencies travel on a logarithmic scale (`saliency_bits`, 32 for float32); with several minibatches the gradient
is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Codec, Context, Float32, LogScale, tag
from thinwire.errors import ConfigError, DecodeError, QuorumError, TrainingError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import base, selection
from thinwire.methods.assemble import assemble
from thinwire.methods.base import ClientState, Data, Method, Setup, Update
from thinwire.methods.commonmask import CommonMask
from thinwire.methods.fedavg import Global, State, finite
from thinwire.methods.saliency import gradient, saliency
from thinwire.methods.sparse import MaskedGlobal, mask_of, move
from thinwire.methods.ssfloptions import SsflOptions
from thinwire.settings import record
from thinwire.tensors import check_maskable
from thinwire.versions import Held


class Ssfl(CommonMask):
    """Training under a common mask, and the rounds in which clients' saliencies make it."""

    @cached_property
    def saliency_codec(self) -> Codec:
        """Levels for those weights of a client that may come near the threshold of the mean: fine ones for few bits."""
        bits, density = self.options.saliency_bits, self.options.density
        keep = max(0.3, 6 * density) if bits > 5 else 3 * density
        return Float32() if bits == 32 else LogScale(bits=bits, keep=min(1.0, keep), top=density / 20)

    def cohort(self, state: State, clients: int, draw: np.random.Generator) -> list[int]:
        """A saliency round asks a fraction of its own."""
        asks = state is not None and self.options.asks(state.history.version)
        fraction = self.options.saliency_fraction if asks else self.setup.fraction
        return base.sample_cohort(fraction, clients, draw)

    def apply(self, step: bytes, old: Global, version: int) -> Global:
        """Weights and mask after a step, which is a mask after a saliency round."""
        if not self.options.asks(version - 1):
            return super().apply(step, old, version)
        mask = old.beside[0]
        new = self.read_mask(step, mask)
        return MaskedGlobal(move(old.weights, mask, new), None, (new,))

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """FedAvg's round on the kept weights, or the saliencies."""
        if not self.options.asks(held.version):
            return super().train(held, state, data)
        algorithm = self.over(held.value.beside[0])
        algorithm.load(held.value.weights, {})
        order = rng.generator(self.setup.seed, held.version + 1, data.client, "saliency").permutation(len(data.y))
        size = self.setup.local.batch_size
        order = order[: size * self.options.saliency_batches]
        slope, loss = gradient(algorithm.dense, data, order, size)
        weights, chosen = self.flat.read()[self.places], algorithm.mask[self.places]
        scores = saliency(slope[self.places], weights, chosen, self.weights)
        payload = self.saliency_codec.encode(scores, Context(self.weights))
        frame = Frame(
            Kind.UPDATE, self.setup.run, held.version, tag(self.saliency_codec), self.flat.layout.digest,
            ((Section.SALIENCY, payload),), samples=len(data.y),
        )  # fmt: skip
        return frames.write(frame), state, {"loss": loss, "steps": 0}

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change (k,), or its saliencies (w,)."""
        if not self.options.asks(state.history.version):
            return super().read(state, client, message)
        codec, layout = self.saliency_codec, self.flat.layout.digest
        frame = base.read_update(self.setup, codec, state.history.version, layout, message)
        scores = finite(codec.decode(frame.sole(Section.SALIENCY), Context(self.weights)), "saliency")
        if (scores < 0).any():
            raise DecodeError("saliency: holds negative entries")
        return Update(frame.samples, scores)

    def mirror(self, held: Held[Global]) -> State | None:
        """As under any mask; saliencies are read against no more than the version."""
        return super().mirror(held)

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """FedAvg's step on the kept weights, or the mask of the added saliencies."""
        if not self.options.asks(state.history.version):
            return super().merge(state, updates)
        mask = self.choose(updates, state.history.version + 1)
        step = self.write_mask(mask, mask_of(state))
        history = state.history.push(step, most_bytes=4 * state.weights.size)
        return self.under(replace(state, history=history), mask)

    def choose(self, updates: Iterable[Update], round: int) -> np.ndarray:
        """The mask (n,) of Σ nₖ sₖ / Σ nₖ, or of the plain mean; QuorumError without saliencies."""
        weighted = updates if self.options.weighted else (replace(update, samples=1) for update in updates)
        scores = self.setup.aggregate(weighted, self.weights)
        if scores is None:
            raise QuorumError("no saliency is left")
        chosen = selection.select(scores, self.weights, self.options.density, self.options.floor)
        if (lost := selection.vanished(chosen, self.weights)) and self.options.strict:
            raise TrainingError(f"round {round}: {selection.collapse(lost, self.options.density)}")
        selection.warn(lost, self.options.density)
        return selection.whole(self.flat.layout, chosen)


def check(algorithm: CommonMask) -> None:
    """A mask that is known beforehand: the layers that vanish under it are named before the run."""
    mask = algorithm.known(algorithm.options.warm_start)
    lost = selection.vanished(mask[algorithm.places], algorithm.weights)
    if lost and algorithm.options.strict:
        density = algorithm.options.density
        raise ConfigError("method.density", density, selection.collapse(lost, density))
    selection.warn(lost, algorithm.options.density)


def ssfl(setup: Setup, options: Mapping[str, Any]) -> Method:
    """SSFL over a set-up; float32 both ways unless told."""
    if setup.parameterisation:
        raise ConfigError("parameterisation.name", setup.parameterisation.id, "dense for ssfl: it masks weights")
    setup, uplink, downlink = base.settle(setup, Float32(), Float32())
    base.check_defences(setup, "ssfl")
    algorithm = Ssfl(setup, record(SsflOptions, options, "method"), uplink, downlink)
    check_maskable(algorithm.flat.model, "ssfl")
    if not algorithm.weights.size:
        raise ConfigError("model", "no weights", "a model with a tensor of two axes or more, for ssfl")
    check(algorithm)
    return assemble("ssfl", algorithm)
