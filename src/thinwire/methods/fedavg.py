"""FedAvg: clients train the weights, the server averages the changes by sample count.

Reference: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1. Error feedback: Seide et al., Interspeech 2014; Karimireddy et al.,
ICML 2019; with a share β of the residual: what was not sent is owed for about 1 / (1 − β) rounds.

Differs from the paper: the change of the weights travels, not the weights, through any codec, both ways; the server's
model is the sum of the steps it has broadcast, so that both ends hold the same one. Under a parameterisation the
weights are its factors (the server averages factors: the product of averages is not the average of products), and
those that stay on the client are kept in its state.

Other algorithms build on `FedAvg`: they override `correction` (what is added to each step's gradient), `remember` (what
a client keeps besides), `personal` (which parameters stay on the client), `merge`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from thinwire import frame as frames
from thinwire import modelfile, rng, versions
from thinwire.codecs import Codec, Context, Float32, at, entries, fidelity, tag
from thinwire.errors import ConfigError, DecodeError, NeedValues, QuorumError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import base
from thinwire.methods.aggregate import majority
from thinwire.methods.assemble import assemble
from thinwire.methods.base import ClientState, Data, Method, Setup, Trained, Update, Work
from thinwire.methods.server import Memory
from thinwire.parameterisations import Dense, personal_names
from thinwire.settings import record
from thinwire.tensors import FlatModel, check_maskable
from thinwire.train import Correction, evaluate, fit
from thinwire.train_together import DenseStack, fit_together
from thinwire.versions import Held, History, Sections


@dataclass(frozen=True)
class Options:
    """FedAvg's own settings.

    send_initial: send the initial weights, not the seed that makes them on both ends. fine_tune: epochs that a client
    trains the model on its own samples before it evaluates it.
    """

    send_initial: bool = False
    fine_tune: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fine_tune < 1e6:
            raise ConfigError("method.fine_tune", self.fine_tune, "a number of epochs from 0 on")


@dataclass(frozen=True)
class Global:
    """What both ends hold: the weights (n,) float32, the last step decoded (None after a keyframe), and what an
    algorithm holds beside them (SCAFFOLD's control variate)."""

    weights: np.ndarray
    change: np.ndarray | None = None
    beside: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class State:
    """The server's state.

    `residual`: what the downlink codec has lost and the next step makes good. `memory`: the server optimiser's.
    """

    history: History
    weights: np.ndarray
    change: np.ndarray
    residual: np.ndarray
    memory: Memory = ()


def same(a: Global, b: Global) -> bool:
    """Is all that both ends hold equal, bit for bit?"""
    pairs = zip((a.weights, *a.beside), (b.weights, *b.beside), strict=True)
    return all(one.tobytes() == other.tobytes() for one, other in pairs)


@dataclass(frozen=True)
class FedAvg:
    """The algorithm's functions over one set-up; `Method` names them for the runtimes."""

    setup: Setup
    options: Options
    uplink: Codec
    downlink: Codec

    masks: ClassVar[bool] = False  # are weights made 0?
    tracks: ClassVar[bool] = False  # does `remember` need what the server will decode?

    @cached_property
    def flat(self) -> FlatModel:
        """Scratch memory: the one model of this process."""
        model = base.network(self.setup)
        return FlatModel(model, self.setup.device, self.personal(model))

    def personal(self, model: nn.Module) -> Collection[str]:
        """Names of the parameters that stay on the client: those that the parameterisation declares."""
        return personal_names(model)

    @cached_property
    def dense(self) -> Dense:
        """The trainee over that model."""
        return Dense(self.flat)

    @cached_property
    def start(self) -> np.ndarray:
        """The initial weights (n,) that the seed makes."""
        return self.flat.initial[: self.flat.shared].copy()

    @property
    def start_personal(self) -> np.ndarray:
        """The initial values of what stays on the client (P − n,)."""
        return self.flat.initial[self.flat.shared :].copy()

    @property
    def has_personal(self) -> bool:
        """Do parameters stay on the client?"""
        return self.flat.size > self.flat.shared

    def down_context(self, version: int) -> Context:
        """What a step to a version is coded with."""
        return Context(self.flat.layout, seed=rng.integer(self.setup.seed, version, purpose="downlink"))

    def init(self) -> State:
        """The model's own initial weights."""
        zeros = np.zeros_like(self.start)
        return State(History(), self.start.copy(), zeros, zeros, self.setup.server.init(self.start.size))

    def client_init(self, client: int) -> ClientState:
        """A residual of zeros under error feedback; the initial values of what stays on the client."""
        state = {"residual": np.zeros_like(self.start)} if self.setup.error_feedback else {}
        return state | ({"personal": self.start_personal} if self.has_personal else {})

    def broadcast(self, state: State, have: int | None) -> bytes:
        """Frame that takes a client from the version it holds (None: nothing) to the current weights."""
        head = Frame(Kind.KEYFRAME, self.setup.run, 0, tag(self.downlink), self.flat.layout.digest)
        return frames.write(self.message(state, have, head))

    def message(self, state: State, have: int | None, head: Frame) -> Frame:
        """The shortest frame from a version to the current one; to SPELT_OUT, a keyframe without a seed."""
        if have == versions.SPELT_OUT:
            sections = tuple(
                (Section.VALUES, self.spelt_out(state)) if sort == Section.SEED else (sort, data)
                for sort, data in self.keyframe(state)
            )
            return state.history.message(None, lambda: sections, head)
        return state.history.message(have, lambda: self.keyframe(state), head, lambda: self.opening)

    def spelt_out(self, state: State) -> bytes:
        """The current weights as float32."""
        return Float32().encode(state.weights, Context(self.flat.layout))

    def keyframe(self, state: State) -> Sections:
        """Version 0 is a seed that both ends hold, and a digest to prove it; any other is sent as float32."""
        if state.history.version == 0 and not self.options.send_initial:
            return ((Section.SEED, seed_section(self.setup.seed, self.start)),)
        return ((Section.VALUES, self.spelt_out(state)),)

    @cached_property
    def opening(self) -> Sections:
        """The keyframe of version 0."""
        return self.keyframe(self.init())

    def receive(self, message: bytes, held: Held[Global] | None, have: int | None) -> Held[Global]:
        """The weights that a client holds after a broadcast."""
        frame = frames.expect(
            frames.read(message), run=self.setup.run, kinds=(Kind.KEYFRAME, Kind.STEP),
            codec=tag(self.downlink), layout=self.flat.layout.digest,
        )  # fmt: skip
        now = versions.receive(frame, held, have, self.read_keyframe, self.apply, same)
        steps = frame.all(Section.STEP)
        if steps and now.value.change is None:  # a resumed process began with a keyframe, this client gets a step
            change = self.decode_step(steps[-1], now.version)
            now = replace(now, value=replace(now.value, change=change))
        return now

    def read_keyframe(self, frame: Frame) -> Global:
        """Inverse of `keyframe`; NeedValues when the seed makes other weights here."""
        if frame.round == 0 and frame.all(Section.SEED):
            theirs, ours = frame.sole(Section.SEED), seed_section(self.setup.seed, self.start)
            if theirs[:8] != ours[:8] or len(theirs) != len(ours):
                raise DecodeError("keyframe: of another seed than this run's")
            if theirs != ours:
                raise NeedValues
            return Global(self.start)
        weights = Float32().decode(frame.sole(Section.VALUES), Context(self.flat.layout))
        return Global(finite(weights, "keyframe"))

    def decode_step(self, step: bytes, version: int) -> np.ndarray:
        """The change (n,) of the weights that a step to a version makes."""
        return finite(self.downlink.decode(step, self.down_context(version)), "step")

    def apply(self, step: bytes, old: Global, version: int) -> Global:
        """The weights after a step."""
        change = self.decode_step(step, version)
        with np.errstate(over="ignore"):
            return Global(finite(old.weights + change, "step"), change)

    def load(self, weights: np.ndarray, state: ClientState) -> nn.Module:
        """The model of weights (n,) and of what a client keeps of it; of the initial values if it keeps nothing."""
        self.flat.write(weights)
        if self.has_personal:
            self.flat.write_personal(state["personal"] if state else self.start_personal)
        return self.flat.model

    def shared_parameters(self) -> torch.Tensor:
        """The trained parameters that travel (shared,), in place."""
        return self.flat.parameters[: self.flat.shared].detach()

    def on_parameters(self, vector: np.ndarray) -> torch.Tensor:
        """The part of a vector (n,) that stands for trained parameters, where they are.  # (shared,)."""
        return torch.from_numpy(vector[: self.flat.shared]).to(self.flat.parameters.device)

    def correction(self, held: Held[Global], state: ClientState) -> Correction | None:
        """What is added to the gradient of every local step: nothing."""
        return None

    def remember(self, held: Held[Global], state: ClientState, sent: np.ndarray, samples: int) -> ClientState:
        """What a client keeps besides residual and personal part: nothing. `sent`: the change as the server has it."""
        return {}

    def train(self, held: Held[Global], state: ClientState, data: Data) -> Trained:
        """Train from the weights received, send the change (and, under error feedback, what earlier frames lost)."""
        self.load(held.value.weights, state)
        order, correction = self._order(held, data), self.correction(held, state)
        metrics = fit(self.dense, data.x, data.y, self.setup.local, held.version + 1, order, correction)
        return self._answer(held, state, data, metrics)

    def train_together(self, cohort: Sequence[Work]) -> list[Trained]:
        """`train` for clients with equally many samples, all steps of all of them together."""
        starts = []
        for held, state, _ in cohort:
            self.load(held.value.weights, state)
            starts.append(self.flat.parameters.detach().clone())
        stack, orders = DenseStack(self.flat, starts), [self._order(held, data) for held, _, data in cohort]
        metrics = fit_together(
            stack, [data.x for *_, data in cohort], [data.y for *_, data in cohort],
            self.setup.local, cohort[0][0].version + 1, orders,
        )  # fmt: skip
        answers = []
        for work, weights, scores in zip(cohort, stack.trained, metrics, strict=True):
            self.flat.parameters.copy_(weights)
            answers.append(self._answer(*work, scores))
        return answers

    def _order(self, held: Held[Global], data: Data) -> np.random.Generator:
        return rng.generator(self.setup.seed, held.version + 1, data.client, "batches")

    def _answer(self, held: Held[Global], state: ClientState, data: Data, metrics: dict[str, float]) -> Trained:
        """The frame and the state of a client whose trained weights are in the model."""
        change = self.flat.read()
        change -= held.value.weights
        if self.setup.error_feedback:
            change += np.float32(self.setup.error_feedback) * state["residual"]
        context = Context(self.flat.layout, held.value.change, self._up_seed(held.version + 1, data.client))
        frame = base.update_frame(self.setup, self.uplink, held.version, change, context, len(data.y))
        kept = {"personal": self.flat.read_personal()} if self.has_personal else {}
        codec, payload, sent = at(self.uplink, held.version), frames.read(frame).sections[0][1], None
        if self.setup.error_feedback or self.tracks:
            sent = codec.decode(payload, context)
            kept |= self.remember(held, state, sent, len(data.y))
            kept |= {"residual": change - sent} if self.setup.error_feedback else {}
        return frame, kept, metrics | fidelity(codec, change, payload, context, sent)

    def _up_seed(self, round: int, client: int) -> int:
        return rng.integer(self.setup.seed, round, client, "uplink")

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change (n,) float32; DecodeError unless every entry is finite and at most 2²⁴."""
        layout = self.flat.layout
        frame = base.read_update(self.setup, self.uplink, state.history.version, layout.digest, message)
        shared = frame.sections[0][0] == Section.VALUES_SHARED if frame.sections else False
        seed = self._up_seed(state.history.version + 1, client)
        context = Context(layout, state.change if shared else None, seed)
        payload = frame.sole(Section.VALUES_SHARED if shared else Section.VALUES)
        change = entries.read(at(self.uplink, state.history.version), payload, context)
        within(sound(entries.values(change), "update"), self.setup.max_update_norm)
        return Update(frame.samples, change)

    def mirror(self, held: Held[Global]) -> State | None:
        """The state as far as `read` looks at it; None after a keyframe, which does not tell the last change."""
        weights, change = held.value.weights, held.value.change
        return None if change is None else State(History(held.version), weights, change, residual=np.empty(0))

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """x ← x + decode(encode(step + residual)); the server optimiser's step, of Σ nₖ Δₖ / Σ nₖ unless told."""
        rule = majority if self.setup.server.rule == "majority" else self.setup.aggregate
        change = rule(updates, self.flat.layout)
        if change is None:
            raise QuorumError("no update is left")
        return self.advance(state, *self.setup.server.step(change, state.memory))

    def advance(self, state: State, change: np.ndarray, memory: Memory) -> State:
        """The state one version on: the change, coded as the downlink codes it."""
        wanted = change + state.residual
        context = self.down_context(state.history.version + 1)
        step = self.downlink.encode(wanted, context)
        change = self.downlink.decode(step, context)
        history = state.history.push(step, most_bytes=4 * wanted.size)
        weights, residual = state.weights + change, wanted - change
        return replace(state, history=history, weights=weights, change=change, residual=residual, memory=memory)

    def model(self, state: State) -> nn.Module:
        """The server's model; what stays on the clients has its initial values in it."""
        return self.load(state.weights, {})

    def evaluate(self, held: Held[Global], state: ClientState, data: Data) -> dict[str, float]:
        """Accuracy and loss on the samples that a client holds back (its own, if none), after `fine_tune` epochs."""
        model = self.load(held.value.weights, state)
        if self.options.fine_tune:
            local = replace(self.setup.local, epochs=self.options.fine_tune)
            order = rng.generator(self.setup.seed, held.version, data.client, "fine-tune")
            fit(self.dense, data.x, data.y, local, max(1, held.version), order)
        return evaluate(model, *data.judged)

    def ship(self, state: State, description: dict[str, Any]) -> bytes:
        """Model file: the weights, or the factors that make them, as safetensors."""
        return modelfile.dense_bytes(self.model(state), description, self.setup.parameterisation)


def seed_section(seed: int, weights: np.ndarray) -> bytes:
    """Seed (8 bytes) and the first 8 bytes of SHA-256 of the weights that it makes."""
    return seed.to_bytes(8, "little") + sha256(weights.astype("<f4").tobytes()).digest()[:8]


def finite(x: np.ndarray, where: str) -> np.ndarray:
    """The array itself; DecodeError when an entry is not finite."""
    if not np.isfinite(x).all():
        raise DecodeError(f"{where}: holds NaN or infinite entries")
    return x


LARGEST = 2.0**24  # of an update's entry: from there on float32 has no fractions, and nothing learns such a weight


def sound(change: np.ndarray, where: str) -> np.ndarray:
    """A client's change itself; DecodeError when an entry is not finite or larger than any that training makes.

    One entry of 3e38 would be a finite mean, and a model that has no finite loss ever again.
    """
    largest = float(np.abs(finite(change, where)).max(initial=0.0))
    if largest > LARGEST:
        why = "a hostile client, or a learning rate that is too high"
        raise DecodeError(f"{where}: an entry of {largest:.3g}, at most {LARGEST:.3g} allowed ({why})")
    return change


def within(change: np.ndarray, bound: float) -> np.ndarray:
    """The change itself; DecodeError when its ‖·‖₂ is above the bound."""
    norm = 0.0 if bound == math.inf else float(np.linalg.norm(change.astype(np.float64)))
    if norm > bound:
        raise DecodeError(f"update: norm {norm:.4g}, server.max_update_norm is {bound:g}")
    return change


def build(name: str, kind: type[FedAvg], settings: type[Options], setup: Setup, options: Mapping[str, Any]) -> Method:
    """The method of an algorithm that is FedAvg or builds on it; float32 both ways unless told."""
    setup, uplink, downlink = base.settle(setup, Float32(), Float32())
    base.check_defences(setup, name)
    algorithm = kind(setup, record(settings, options, "method"), uplink, downlink)
    if kind.masks:
        check_maskable(algorithm.flat.model, name)
    return assemble(name, algorithm)


def fedavg(setup: Setup, options: Mapping[str, Any]) -> Method:
    """FedAvg over a set-up."""
    return build("fedavg", FedAvg, Options, setup, options)
