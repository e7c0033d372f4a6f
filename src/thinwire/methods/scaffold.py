"""SCAFFOLD: control variates take the drift out of local steps.

Reference: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
arXiv 1910.06378, option II: cᵢ ← cᵢ − c − Δᵢ / (Kᵢ η).

No second vector travels up: the server derives cᵢ's change, −c − Δᵢ / (Kᵢ η), from the update and its sample count, and
the client uses the change as the server decodes it, so that both hold the same cᵢ under any codec, but for rounding:
the server adds up in float64, a client keeps float32. The change of c travels down beside the change of the weights,
coded by the downlink codec with a residual of its own, and is charged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from thinwire import rng
from thinwire.codecs import Context, Float32, varint
from thinwire.codecs.entries import add
from thinwire.errors import ConfigError
from thinwire.frame import Frame, Section
from thinwire.methods import base
from thinwire.methods.base import ClientState, Method, Setup, Update
from thinwire.methods.fedavg import FedAvg, Global, Options, State, build, finite
from thinwire.methods.server import Mean
from thinwire.train import Correction, batch_count
from thinwire.versions import Held, Sections


class Scaffold(FedAvg):
    """FedAvg whose state has (c, residual of c's downlink) as memory; clients weigh the same."""

    tracks: ClassVar[bool] = True

    def init(self) -> State:
        """c = 0."""
        return replace(super().init(), memory=(np.zeros_like(self.start), np.zeros_like(self.start)))

    def client_init(self, client: int) -> ClientState:
        """cᵢ = 0."""
        return super().client_init(client) | {"control": np.zeros_like(self.start)}

    def control(self, held: Held[Global]) -> np.ndarray:
        """c (n,) as a client holds it."""
        return held.value.beside[0] if held.value.beside else np.zeros_like(self.start)

    def correction(self, held: Held[Global], state: ClientState) -> Correction:
        """c − cᵢ."""
        return Correction(offset=self.on_parameters(self.control(held) - state["control"]))

    def remember(self, held: Held[Global], state: ClientState, sent: np.ndarray, samples: int) -> ClientState:
        """cᵢ + its change."""
        return {"control": state["control"] + self.drift(self.control(held), sent, samples, held.version + 1)}

    def drift(self, control: np.ndarray, change: np.ndarray, samples: int, round: int) -> np.ndarray:
        """−c − Δᵢ / (Kᵢ η).  # (n,) float32."""
        return -control - change / np.float32(self.path(samples, round))

    def path(self, samples: int, round: int) -> float:
        """Kᵢ η, local steps times the learning rate."""
        local = self.setup.local
        return local.epochs * batch_count(samples, local) * local.rate(round)

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """x ← x + lr · mean Δᵢ; c ← c + Σ (cᵢ's change) / N, N of all clients."""
        total, count = np.zeros(self.start.size), [0]
        control, residual = state.memory
        merged = super().merge(state, self._note(updates, state, total, count))
        total -= count[0] * control.astype(np.float64)
        wanted = (total / max(self.setup.clients, count[0])).astype(np.float32) + residual
        context = self.control_context(merged.history.version)
        step = self.downlink.encode(wanted, context)
        change = self.downlink.decode(step, context)
        weights_step = merged.history.steps[-1]
        joined = varint.write([len(weights_step)]) + weights_step + step
        history = state.history.push(joined, most_bytes=8 * self.start.size)
        return replace(merged, history=history, memory=(control + change, wanted - change))

    def _note(self, updates: Iterable[Update], state: State, total: np.ndarray, count: list[int]) -> Iterator[Update]:
        """The updates, each of one sample; adds up −Δᵢ / (Kᵢ η) and counts them on the way."""
        for update in updates:
            add(total, update.change, -1 / self.path(update.samples, state.history.version + 1))
            count[0] += 1
            yield replace(update, samples=1)

    def control_context(self, version: int) -> Context:
        """What c's step to a version is coded with."""
        return Context(self.flat.layout, seed=rng.integer(self.setup.seed, version, purpose="control"))

    def decode_step(self, step: bytes, version: int) -> np.ndarray:
        """The weights' part of a step."""
        return super().decode_step(_parts(step)[0], version)

    def apply(self, step: bytes, old: Global, version: int) -> Global:
        """Weights and c after a step."""
        change = finite(self.downlink.decode(_parts(step)[1], self.control_context(version)), "step of c")
        before = old.beside[0] if old.beside else np.zeros_like(self.start)
        with np.errstate(over="ignore"):
            return replace(super().apply(step, old, version), beside=(finite(before + change, "step of c"),))

    def keyframe(self, state: State) -> Sections:
        """The weights' keyframe and c; c is 0 at version 0 and does not travel then."""
        if state.history.version == 0:
            return super().keyframe(state)
        payload = Float32().encode(state.memory[0], Context(self.flat.layout))
        return (*super().keyframe(state), (Section.CONTROL, payload))

    def read_keyframe(self, frame: Frame) -> Global:
        """Inverse of `keyframe`."""
        if frame.round == 0:
            return super().read_keyframe(frame)
        control = Float32().decode(frame.one(Section.CONTROL), Context(self.flat.layout))
        weights = tuple(section for section in frame.sections if section[0] != Section.CONTROL)
        return replace(super().read_keyframe(replace(frame, sections=weights)), beside=(finite(control, "keyframe"),))


def _parts(step: bytes) -> tuple[bytes, bytes]:
    """The weights' part and c's part of a step; DecodeError when it is cut."""
    reader = varint.Reader(step)
    return reader.take(reader.next()), reader.rest()


def scaffold(setup: Setup, options: Mapping[str, Any]) -> Method:
    """SCAFFOLD over a set-up."""
    if type(setup.server) is not Mean:
        raise ConfigError("server.optimizer", setup.server, "mean for scaffold: the control variates are of its step")
    local = setup.local
    for name, right, allowed in (
        ("optimizer", local.optimizer == "sgd", "sgd"),
        ("momentum", not local.momentum, "0"),
        ("lr", local.lr > 0, "above 0"),
    ):
        if not right:
            raise ConfigError(
                f"local.{name}",
                getattr(local, name),
                f"{allowed} for scaffold: its control variates are of plain SGD steps",
            )
    base.plain_mean(setup, "scaffold", "its control variates are a mean")
    return build("scaffold", Scaffold, Options, setup, options)
