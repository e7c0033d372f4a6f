"""FedAvg: clients train the weights, the server averages the changes by sample count.

Reference: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1. Error feedback: Seide et al., Interspeech 2014; Karimireddy et al.,
ICML 2019.

Differs from the paper: the change of the weights travels, not the weights, through any codec, both ways; the server's
model is the sum of the steps it has broadcast, so that both ends hold the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from torch import nn

from thinwire import frame as frames
from thinwire import modelfile, rng, versions
from thinwire.codecs import Codec, Context, Float32, at, tag
from thinwire.errors import DecodeError, TrainingError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import base
from thinwire.methods.aggregate import RULES
from thinwire.methods.base import ClientState, Data, Method, Setup, Update
from thinwire.parameterisations import Dense
from thinwire.settings import record
from thinwire.tensors import FlatModel
from thinwire.train import evaluate, fit
from thinwire.versions import Held, History


@dataclass(frozen=True)
class Options:
    """FedAvg's own settings. send_initial: send the initial weights, not the seed that makes them on both ends."""

    send_initial: bool = False


@dataclass(frozen=True)
class Global:
    """What both ends hold: the weights (n,) float32 and the last step decoded, None after a keyframe."""

    weights: np.ndarray
    change: np.ndarray | None = None


@dataclass(frozen=True)
class State:
    """The server's state; `residual` is what the downlink codec has lost and the next step makes good."""

    history: History
    weights: np.ndarray
    change: np.ndarray
    residual: np.ndarray


def same(a: Global, b: Global) -> bool:
    """Are the weights equal, bit for bit?"""
    return a.weights.tobytes() == b.weights.tobytes()


@dataclass(frozen=True)
class FedAvg:
    """The algorithm's functions over one set-up; `Method` names them for the runtimes."""

    setup: Setup
    options: Options
    uplink: Codec
    downlink: Codec

    @cached_property
    def flat(self) -> FlatModel:
        """Scratch memory: the one model of this process."""
        return FlatModel(base.seeded(self.setup.build, self.setup.seed), self.setup.device)

    @cached_property
    def dense(self) -> Dense:
        """The trainee over that model."""
        return Dense(self.flat)

    @cached_property
    def start(self) -> np.ndarray:
        """The initial weights (n,) that the seed makes."""
        return FlatModel(base.seeded(self.setup.build, self.setup.seed)).read()

    def down_context(self, version: int) -> Context:
        """What a step to a version is coded with."""
        return Context(self.flat.layout, seed=rng.integer(self.setup.seed, version, purpose="downlink"))

    def init(self) -> State:
        """The model's own initial weights."""
        return State(History(), self.start.copy(), np.zeros_like(self.start), np.zeros_like(self.start))

    def client_init(self, client: int) -> ClientState:
        """A residual of zeros under error feedback, else nothing."""
        return {"residual": np.zeros(self.flat.layout.size, np.float32)} if self.setup.error_feedback else {}

    def broadcast(self, state: State, have: int | None) -> bytes:
        """Frame that takes a client from the version it holds (None: nothing) to the current weights."""
        head = Frame(Kind.KEYFRAME, self.setup.run, 0, tag(self.downlink), self.flat.layout.digest)
        return frames.write(state.history.message(have, lambda: self._keyframe(state), head))

    def _keyframe(self, state: State) -> tuple[tuple[int, bytes], ...]:
        """Version 0 is a seed that both ends hold, and a digest to prove it; any other is sent as float32."""
        if state.history.version == 0 and not self.options.send_initial:
            return ((Section.SEED, seed_section(self.setup.seed, self.start)),)
        return ((Section.VALUES, Float32().encode(state.weights, Context(self.flat.layout))),)

    def receive(self, message: bytes, held: Held[Global] | None, have: int | None) -> Held[Global]:
        """The weights that a client holds after a broadcast."""
        frame = frames.expect(
            frames.read(message), run=self.setup.run, kinds=(Kind.KEYFRAME, Kind.STEP),
            codec=tag(self.downlink), layout=self.flat.layout.digest,
        )  # fmt: skip
        now = versions.receive(frame, held, have, self._read_keyframe, self._apply, same)
        steps = frame.all(Section.STEP)
        if steps and now.value.change is None:  # a resumed process began with a keyframe, this client gets a step
            change = self.downlink.decode(steps[-1], self.down_context(now.version))
            now = replace(now, value=replace(now.value, change=change))
        return now

    def _read_keyframe(self, frame: Frame) -> Global:
        if frame.round == 0 and frame.all(Section.SEED):
            if frame.sole(Section.SEED) != seed_section(self.setup.seed, self.start):
                raise DecodeError("keyframe: the initial weights made here are not the sender's: set send_initial")
            return Global(self.start)
        weights = Float32().decode(frame.sole(Section.VALUES), Context(self.flat.layout))
        return Global(_finite(weights, "keyframe"))

    def _apply(self, step: bytes, old: Global, version: int) -> Global:
        change = _finite(self.downlink.decode(step, self.down_context(version)), "step")
        with np.errstate(over="ignore"):
            return Global(_finite(old.weights + change, "step"), change)

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """Train from the weights received, send the change (and, under error feedback, what earlier frames lost)."""
        start, round = held.value.weights, held.version + 1
        self.flat.write(start)
        order = rng.generator(self.setup.seed, round, data.client, "batches")
        metrics = fit(self.dense, data.x, data.y, self.setup.local, round, order)
        change = self.flat.read() - start
        if self.setup.error_feedback:
            change += state["residual"]
        seed = rng.integer(self.setup.seed, round, data.client, "uplink")
        context = Context(self.flat.layout, held.value.change, seed)
        frame = base.update_frame(self.setup, self.uplink, held.version, change, context, len(data.y))
        if self.setup.error_feedback:
            sent = frames.read(frame).sections[0][1]
            state = {"residual": change - at(self.uplink, held.version).decode(sent, context)}
        return frame, state, metrics

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change (n,) float32; DecodeError unless every entry is finite."""
        layout = self.flat.layout
        frame = base.read_update(self.setup, self.uplink, state.history.version, layout.digest, message)
        shared = frame.sections[0][0] == Section.VALUES_SHARED if frame.sections else False
        seed = rng.integer(self.setup.seed, state.history.version + 1, client, "uplink")
        context = Context(layout, state.change if shared else None, seed)
        payload = frame.sole(Section.VALUES_SHARED if shared else Section.VALUES)
        change = at(self.uplink, state.history.version).decode(payload, context)
        return Update(frame.samples, _finite(change, "update"))

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """x ← x + decode(encode(aggregate + residual)); the aggregate is Σ nₖ Δₖ / Σ nₖ unless another rule is set."""
        change = RULES[self.setup.server](updates, self.flat.layout)
        if change is None:
            raise TrainingError(f"round {state.history.version + 1}: no update is left")
        wanted = change + state.residual
        context = self.down_context(state.history.version + 1)
        step = self.downlink.encode(wanted, context)
        change = self.downlink.decode(step, context)
        history = state.history.push(step, most_bytes=4 * wanted.size)
        return State(history, state.weights + change, change, wanted - change)

    def _load(self, weights: np.ndarray) -> nn.Module:
        self.flat.write(weights)
        return self.flat.model

    def model(self, state: State) -> nn.Module:
        """The server's model."""
        return self._load(state.weights)

    def evaluate(self, held: Held[Global], state: ClientState, data: Data) -> dict[str, float]:
        """Accuracy and loss of the server's model on a client's own samples."""
        return evaluate(self._load(held.value.weights), data.x, data.y)

    def ship(self, state: State, description: dict[str, Any]) -> bytes:
        """Model file: the weights as safetensors."""
        return modelfile.dense_bytes(self.model(state), description)


def seed_section(seed: int, weights: np.ndarray) -> bytes:
    """Seed (8 bytes) and the first 8 bytes of SHA-256 of the weights that it makes."""
    return seed.to_bytes(8, "little") + sha256(weights.astype("<f4").tobytes()).digest()[:8]


def _finite(x: np.ndarray, where: str) -> np.ndarray:
    """The array itself; DecodeError when an entry is not finite."""
    if not np.isfinite(x).all():
        raise DecodeError(f"{where}: holds NaN or infinite entries")
    return x


def fedavg(setup: Setup, options: Mapping[str, Any]) -> Method:
    """FedAvg over a set-up; float32 both ways unless told."""
    uplink = base.codec_for(setup.uplink, Float32(), "float32", "uplink")
    downlink = base.codec_for(setup.downlink, Float32(), "float32", "downlink")
    algorithm = FedAvg(setup, record(Options, options, "method"), uplink, downlink)
    return base.assemble("fedavg", algorithm, algorithm.flat.size)
