"""FedPM: freeze random weights, train a stochastic mask, send one sample of it.

Reference: Isik, Pase, Gündüz, Weissman, Zorzi, "Sparse Random Networks for Communication-Efficient Federated
Learning", ICLR 2023, arXiv 2209.15328, Algorithm 1 and its Bayesian aggregation.

Differs from the paper: masks are coded against the counts just broadcast, which changes no bit of the training; the
broadcast is the counts, not float32 probabilities; θ stays in [ε, 1 − ε] before the logit with ε = 1e-4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from math import ceil, inf, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from thinwire import frame as frames
from thinwire import modelfile, rng, versions
from thinwire.codecs import Codec, Context, Mask, Votes, tag
from thinwire.errors import ConfigError, DecodeError, QuorumError, one_of
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import base
from thinwire.methods.assemble import assemble
from thinwire.methods.base import ClientState, Data, Method, Setup, Trained, Update, Work
from thinwire.methods.server import Mean
from thinwire.parameterisations import Masked, frozen_weights, mask_layout
from thinwire.parameterisations.mask import STRAIGHT_THROUGH, MaskedStack
from thinwire.parameterisations.rounding import ROUNDINGS, round_mask
from thinwire.settings import record
from thinwire.tally import Tally, TallyWire, same
from thinwire.tensors import FlatModel, check_maskable
from thinwire.train import evaluate, fit
from thinwire.train_together import fit_together
from thinwire.versions import Held, History, Sections

EVALUATIONS = ("mean", "threshold", "sample")


@dataclass(frozen=True)
class Options:
    """FedPM's own settings.

    gain: scale of the frozen weights. epsilon: θ stays in [ε, 1 − ε] before the logit. straight_through: `identity`
    or `probability`. evaluation: the server's model is `mean` (W∘θ), `threshold` (θ > ½) or a `sample`. prior: λ₀ of
    the Beta prior. reset_every: rounds until the prior is λ₀ again, 0 for ⌈1/fraction⌉. sparsity: λ of regularised
    FedPM. ship: the mask of the model file is rounded from θ by `diffusion`, `threshold` or as a `sample`.
    share_counts: code masks against the counts; without, the paper's marginal coding.
    """

    gain: float = sqrt(2)
    epsilon: float = 1e-4
    straight_through: str = "identity"
    evaluation: str = "mean"
    prior: float = 1.0
    reset_every: int = 0
    sparsity: float = 0.0
    ship: str = "diffusion"
    share_counts: bool = True

    def __post_init__(self) -> None:
        for field, good, allowed in (
            ("gain", 0 < self.gain < 1e6, "above 0"),
            ("epsilon", 0 < self.epsilon < 0.5, "between 0 and 0.5, both excluded"),
            (
                "straight_through",
                self.straight_through in STRAIGHT_THROUGH,
                one_of(self.straight_through, STRAIGHT_THROUGH),
            ),
            ("evaluation", self.evaluation in EVALUATIONS, one_of(self.evaluation, EVALUATIONS)),
            ("prior", 1 <= self.prior < 1e6, "at least 1"),
            ("reset_every", self.reset_every >= 0, "0 (one pass over all clients) or a number of rounds"),
            ("ship", self.ship in ROUNDINGS, one_of(self.ship, ROUNDINGS)),
            ("sparsity", 0 <= self.sparsity < 1e6, "at least 0"),
        ):
            if not good:
                raise ConfigError(f"method.{field}", getattr(self, field), allowed)


@dataclass(frozen=True)
class State:
    """The server's state: the tally just broadcast and the steps that led to it."""

    history: History
    tally: Tally


@dataclass(frozen=True)
class FedPM:
    """The algorithm's functions over one set-up; `Method` names them for the runtimes."""

    setup: Setup
    options: Options
    uplink: Codec
    downlink: Codec

    @cached_property
    def flat(self) -> FlatModel:
        """Scratch memory: the one model of this process."""
        return FlatModel(base.network(self.setup), self.setup.device)

    @cached_property
    def masked(self) -> Masked:
        """The trainee over that model."""
        frozen = frozen_weights(mask_layout(self.flat.layout), self.setup.seed, self.options.gain)
        return Masked(self.flat, frozen, self.options.straight_through, self.options.sparsity)

    @cached_property
    def wire(self) -> TallyWire:
        """How the tally travels."""
        digest = sha256(self.masked.frozen.cpu().numpy().astype("<f4").tobytes()).digest()[:8]
        return TallyWire(self.downlink, mask_layout(self.flat.layout), digest)

    def init(self) -> State:
        """No masks yet: θ = ½ everywhere."""
        return State(History(), Tally(self.setup.seed, 0, np.zeros(self.wire.layout.size, dtype=np.uint32)))

    def broadcast(self, state: State, have: int | None) -> bytes:
        """Frame that takes a client from the version it holds (None: nothing) to the current tally."""
        head = Frame(Kind.KEYFRAME, self.setup.run, 0, tag(self.downlink), self.wire.layout.digest)
        return frames.write(
            state.history.message(have, lambda: self.wire.keyframe(state.tally), head, lambda: self.opening)
        )

    @cached_property
    def opening(self) -> Sections:
        """The keyframe of version 0."""
        return self.wire.keyframe(self.init().tally)

    def receive(self, message: bytes, held: Held[Tally] | None, have: int | None) -> Held[Tally]:
        """The tally that a client holds after a broadcast."""
        frame = frames.expect(
            frames.read(message), run=self.setup.run, kinds=(Kind.KEYFRAME, Kind.STEP),
            codec=tag(self.downlink), layout=self.wire.layout.digest,
        )  # fmt: skip
        return versions.receive(frame, held, have, self.wire.read_keyframe, self.wire.apply, same)

    def context(self, tally: Tally) -> Context:
        """What a mask is coded against."""
        return Context(self.wire.layout, tally.shared if self.options.share_counts else None)

    def train(self, held: Held[Tally], state: ClientState, data: Data) -> Trained:
        """Train the scores from logit(θ), send m ~ Bernoulli(sigmoid(s))."""
        round = held.version + 1
        self.masked.start(self._scores(held.value), self._seed(round, data, "masks"))
        order = rng.generator(self.setup.seed, round, data.client, "batches")
        metrics = fit(self.masked, data.x, data.y, self.setup.local, round, order)
        return self._answer(held, state, data, self.masked.trained, metrics)

    def train_together(self, cohort: Sequence[Work]) -> list[Trained]:
        """`train` for clients with equally many samples, all steps of all of them together."""
        round = cohort[0][0].version + 1
        seeds = [self._seed(round, data, "masks") for *_, data in cohort]
        stack = MaskedStack(self.masked, [self._scores(held.value) for held, *_ in cohort], seeds)
        orders = [rng.generator(self.setup.seed, round, data.client, "batches") for *_, data in cohort]
        metrics = fit_together(
            stack, [data.x for *_, data in cohort], [data.y for *_, data in cohort], self.setup.local, round, orders
        )
        return [
            self._answer(*work, row, scores) for work, row, scores in zip(cohort, stack.trained, metrics, strict=True)
        ]

    def _scores(self, tally: Tally) -> np.ndarray:
        """logit(θ), θ kept from 0 and 1.  # (d,) float32."""
        kept = np.clip(tally.probabilities(self.options.prior), self.options.epsilon, 1 - self.options.epsilon)
        return np.log(kept / (1 - kept)).astype(np.float32)[tally.ones]

    def _answer(
        self, held: Held[Tally], state: ClientState, data: Data, scores: torch.Tensor, metrics: dict[str, float]
    ) -> Trained:
        """A mask drawn from the trained scores (d,), as a frame."""
        round, tally = held.version + 1, held.value
        theta = torch.sigmoid(scores).cpu().numpy()
        draws = rng.generator(self.setup.seed, round, data.client, "uplink").random(theta.size, dtype=np.float32)
        context = self.context(tally)
        mask = (draws < theta).view(np.uint8)
        frame = base.update_frame(self.setup, self.uplink, held.version, mask, context, len(data.y))
        return frame, state, metrics

    def _seed(self, round: int, data: Data, purpose: str) -> int:
        return rng.integer(self.setup.seed, round, data.client, purpose)

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's mask (d,) uint8."""
        context = self.context(state.tally)
        frame = base.read_update(self.setup, self.uplink, state.history.version, context.layout.digest, message)
        section = Section.VALUES if context.shared is None else Section.VALUES_SHARED
        mask = self.uplink.decode(frame.sole(section), context)
        most = self.setup.max_votes_against
        if most < 1 and (share := against(mask, state.tally)) > most:
            raise DecodeError(f"mask: {share:.3f} of its votes are against, server.max_votes_against is {most:g}")
        return Update(frame.samples, mask, marginal_bits=binary_entropy(np.count_nonzero(mask) / mask.size) * mask.size)

    def mirror(self, held: Held[Tally]) -> State:
        """The state as far as `read` looks at it."""
        return State(History(held.version), held.value)

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """Beta aggregation: ones += Σ m, total += K, after a reset when one is due."""
        every = self.options.reset_every or ceil(1 / self.setup.fraction - 1e-9)  # 1 / (1/49) is a little above 49
        reset = state.history.version % every == 0
        total, ones = (0, np.zeros_like(state.tally.ones)) if reset else (state.tally.total, state.tally.ones.copy())
        before = total
        for update in updates:
            ones += update.value
            total += 1
        if total == before:
            raise QuorumError("no update is left")
        tally = replace(state.tally, total=total, ones=ones)
        step = self.wire.step(state.tally, tally)
        return State(state.history.push(step, most_bytes=4 * ones.size), tally)

    def weights(self, tally: Tally, evaluation: str, round: int) -> nn.Module:
        """The model of a tally: W∘θ, W∘(θ > ½) or W∘m."""
        theta = tally.theta(self.options.prior)
        if evaluation == "threshold":
            theta = (theta > 0.5).astype(np.float32)
        if evaluation == "sample":
            draws = rng.generator(self.setup.seed, round, purpose="evaluation").random(theta.size, dtype=np.float32)
            theta = (draws < theta).astype(np.float32)
        self.masked.write(torch.from_numpy(theta).to(self.flat.parameters.device))
        return self.flat.model

    def model(self, state: State) -> nn.Module:
        """The server's model in the evaluation mode asked for."""
        return self.weights(state.tally, self.options.evaluation, state.history.version)

    def evaluate(self, held: Held[Tally], state: ClientState, data: Data) -> dict[str, float]:
        """Accuracy and loss of the same model on the samples that a client holds back (its own, if none)."""
        return evaluate(self.weights(held.value, self.options.evaluation, held.version), *data.judged)

    def ship(self, state: State, description: dict[str, Any]) -> bytes:
        """Model file: seed + one mask, rounded from θ as `ship` says."""
        frozen, draw = (
            self.masked.frozen.cpu().numpy(),
            rng.generator(self.setup.seed, state.history.version, purpose="ship"),
        )
        theta = state.tally.theta(self.options.prior)
        mask = round_mask(theta, frozen, self.wire.layout, self.options.ship, draw)
        other = partial(base.seeded, self.setup.build, self.setup.seed ^ 1)
        return modelfile.mask_frame(description, self.flat, self.setup.seed, self.options.gain, mask, other)


def binary_entropy(density: float) -> float:
    """H₂(density) in bits."""
    return -sum(p * np.log2(p) for p in (density, 1 - density) if p > 0)


def against(mask: np.ndarray, tally: Tally) -> float:
    """Share of a mask's votes that go against a tally: Σ |lᵢ| [mᵢ ≠ (lᵢ > 0)] / Σ |lᵢ|, where lᵢ = 2 onesᵢ − total.

    0 where nothing leans, before the first masks. The shares of a mask and of its inverse add up to 1.
    """
    lean = 2 * tally.ones.astype(np.int64) - tally.total
    total = int(np.abs(lean).sum())
    return int(np.abs(lean[mask != (lean > 0)]).sum()) / total if total else 0.0


def fedpm(setup: Setup, options: Mapping[str, Any]) -> Method:
    """FedPM over a set-up; uplink `mask` and downlink `votes` unless told."""
    setup, uplink, downlink = base.settle(setup, Mask(), Votes())
    if setup.server != Mean():
        raise ConfigError("server.optimizer", setup.server, "mean for fedpm: masks are counted")
    base.plain_mean(setup, "fedpm", "masks are counted; max_votes_against refuses hostile ones")
    if setup.max_update_norm != inf:
        raise ConfigError("server.max_update_norm", setup.max_update_norm, "not for fedpm: a mask has no size")
    if setup.parameterisation:
        raise ConfigError("parameterisation.name", setup.parameterisation.id, "dense for fedpm: it masks dense weights")
    if setup.error_feedback:
        raise ConfigError("uplink.error_feedback", True, "false for fedpm: masks are samples, there is no residual")
    algorithm = FedPM(setup, record(Options, options, "method"), uplink, downlink)
    check_maskable(algorithm.flat.model, "fedpm")
    mask_layout(algorithm.flat.layout)  # refuses here, not in the first round, a model that cannot be masked
    return assemble("fedpm", algorithm)
