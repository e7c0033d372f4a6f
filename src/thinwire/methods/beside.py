"""What travels beside the trained weights, whatever the method: buffers, and the word that both ends have the rest.

A method knows trained parameters alone. Around it, `beside` adds to every broadcast the buffers that differ from the
model's first ones, and to every update those that training has changed: a section of their own, whole and exact. The
server takes their mean by samples (the median where `[server] aggregate` is a robust rule). Buffers that stay as they
are, and frozen parameters, cost 8 bytes a keyframe: their digest. Buffers of layers that stay on the client stay there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from thinwire import frame as frames
from thinwire.buffers import MEAN, MEDIAN, Rule
from thinwire.codecs import trace
from thinwire.errors import DecodeError, QuorumError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods.aggregate import Mean
from thinwire.methods.base import ClientState, Data, Method, ServerState, Setup, Trained, Update
from thinwire.tensors import FlatModel, frozen
from thinwire.versions import Held

OWN = "buffers"  # where a client's state has the buffers that stay on it
FUNCTIONS = (
    "init", "client_init", "cohort", "version", "broadcast", "receive", "train", "evaluate", "read", "merge", "model",
    "ship",
)  # fmt: skip


@dataclass(frozen=True)
class WithBuffers:
    """A method's server state, or the value that both ends hold, and the bytes of the model's buffers."""

    inner: Any
    buffers: bytes

    @property
    def mask(self) -> Any:
        """The inner value's mask, for readers that look for one."""
        return getattr(self.inner, "mask", None)


def beside(method: Method, flat: FlatModel, setup: Setup) -> Method:
    """The method itself where the model has neither buffers nor frozen parameters, else one that sees to them."""
    if not (flat.buffers or flat.own_buffers or frozen(flat.model)):
        return method
    added = Beside(method, flat, MEAN if setup.aggregate == Mean() else MEDIAN)
    functions: dict[str, Any] = {name: getattr(added, name) for name in FUNCTIONS}
    return replace(method, **functions, mirror=added.mirror if method.mirror else None, train_together=None)


@dataclass(frozen=True)
class Beside:
    """The functions of a method around those of `method`, which knows nothing of buffers."""

    method: Method
    flat: FlatModel
    rule: Rule

    def init(self) -> WithBuffers:
        """The model's first buffers."""
        return WithBuffers(self.method.init(), self.flat.first_buffers)

    def client_init(self, client: int) -> ClientState:
        """The first values of the buffers that stay on the client."""
        state = self.method.client_init(client)
        return state | {OWN: _array(self.flat.first_own)} if self.flat.own_buffers else state

    def cohort(self, state: WithBuffers | None, clients: int, draw: np.random.Generator) -> list[int]:
        """The method's."""
        return self.method.cohort(state and state.inner, clients, draw)

    def version(self, state: WithBuffers) -> int:
        """The method's."""
        return self.method.version(state.inner)

    # down ------------------------------------------------------------------------------------------------------------

    def broadcast(self, state: WithBuffers, have: int | None) -> bytes:
        """The method's frame; in a keyframe the digest of what stands, then the buffers that are not the first ones."""
        frame = frames.read(self.method.broadcast(state.inner, have))
        sections = frame.sections
        if frame.kind == Kind.KEYFRAME:
            sections = (*sections, (Section.STANDING, self.flat.standing))
        if payload := self.flat.buffers.difference(state.buffers, self.flat.first_buffers):
            sections = (*sections, (Section.BUFFERS, payload))
        return frames.write(replace(frame, sections=sections))

    def receive(self, message: bytes, held: Held[WithBuffers] | None, have: int | None) -> Held[WithBuffers]:
        """What a client holds after a broadcast; DecodeError where its frozen parameters or first buffers differ."""
        frame, payload = _without(frames.read(message), Section.BUFFERS)
        if frame.kind == Kind.KEYFRAME:
            frame, digest = _without(frame, Section.STANDING)
            if digest != self.flat.standing:
                raise DecodeError(
                    "keyframe: the frozen parameters or first buffers made here are not the sender's: build the model "
                    "from the same file, or with torch's own initialisation, on both sides"
                )
        inner = self.method.receive(frames.write(frame), held and replace(held, value=held.value.inner), have)
        buffers = self.flat.buffers.patched(self.flat.first_buffers, payload)
        return replace(inner, value=WithBuffers(inner.value, buffers))

    # on the client ---------------------------------------------------------------------------------------------------

    def _put(self, buffers: bytes, state: ClientState) -> ClientState:
        """Make the model hold the buffers that travel and the client's own. -> the state that the method knows."""
        self.flat.buffers.write(buffers)
        if self.flat.own_buffers:
            self.flat.own_buffers.write(state[OWN].tobytes() if OWN in state else self.flat.first_own)
        return {name: array for name, array in state.items() if name != OWN}

    def train(self, held: Held[WithBuffers], state: ClientState, data: Data) -> Trained:
        """The method's frame and the buffers that training has changed."""
        inner = self._put(held.value.buffers, state)
        message, kept, metrics = self.method.train(replace(held, value=held.value.inner), inner, data)
        if self.flat.own_buffers:
            kept = kept | {OWN: _array(self.flat.own_buffers.read())}
        if payload := self.flat.buffers.difference(self.flat.buffers.read(), held.value.buffers):
            frame = frames.read(message)
            message = frames.write(replace(frame, sections=(*frame.sections, (Section.BUFFERS, payload))))
        return message, kept, metrics

    def evaluate(self, held: Held[WithBuffers], state: ClientState, data: Data) -> dict[str, float]:
        """The method's, with these buffers."""
        inner = self._put(held.value.buffers, state)
        return self.method.evaluate(replace(held, value=held.value.inner), inner, data)

    # on the server ---------------------------------------------------------------------------------------------------

    def read(self, state: WithBuffers, client: int, message: bytes) -> Update:
        """The method's update and the payload of its buffers, checked."""
        frame, payload = _without(frames.read(message), Section.BUFFERS)
        update = self.method.read(state.inner, client, frames.write(frame) if payload else message)
        self.flat.buffers.patched(state.buffers, payload)
        trace.cut("buffers", len(payload))
        return replace(update, buffers=payload)

    def mirror(self, held: Held[WithBuffers]) -> ServerState | None:
        """The state as far as `read` looks at it."""
        assert self.method.mirror is not None
        state = self.method.mirror(replace(held, value=held.value.inner))
        return None if state is None else WithBuffers(state, held.value.buffers)

    def merge(self, state: WithBuffers, updates: Iterable[Update]) -> WithBuffers:
        """The method's step; buffers are their mean (or median) over the clients, whatever the server optimiser."""
        sides: list[tuple[int, bytes]] = []
        inner = self.method.merge(state.inner, _note(updates, sides))
        if not sides:
            raise QuorumError("no update is left")
        return WithBuffers(inner, self.flat.buffers.combine(state.buffers, sides, self.rule))

    def model(self, state: WithBuffers) -> nn.Module:
        """The server's model."""
        self._put(state.buffers, {})
        return self.method.model(state.inner)

    def ship(self, state: WithBuffers, description: dict[str, Any]) -> bytes:
        """The method's model file of a model that holds these buffers."""
        self._put(state.buffers, {})
        return self.method.ship(state.inner, description)


def _note(updates: Iterable[Update], sides: list[tuple[int, bytes]]) -> Iterator[Update]:
    """The updates; their samples and buffers are noted on the way."""
    for update in updates:
        sides.append((update.samples, update.buffers))
        yield update


def _without(frame: Frame, wanted: Section) -> tuple[Frame, bytes]:
    """The frame without its one section of a sort, and that section's bytes; none where it has none."""
    data = frame.one(wanted) if frame.all(wanted) else b""
    return replace(frame, sections=tuple(part for part in frame.sections if part[0] != wanted)), data


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)
