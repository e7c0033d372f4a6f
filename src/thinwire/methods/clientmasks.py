"""A mask of its own for each client: drawn at random, or grown as training goes (DisPFL).

`client-masks` is the baseline of per-client random masks in Ohib et al., arXiv 2405.09037: layer-wise, of the seed and
the client, so that both ends make it and it never travels.

`dispfl`: Dai, Shen, He, Tian, Tao, "DisPFL: Towards Communication-Efficient Personalized Federated Learning via
Decentralized Sparse Training", ICML 2022, arXiv 2206.00187. After its local steps a client drops the smallest
⌊αₜ kept⌋ weights of every layer and regrows as many others where the gradient of one minibatch is largest,
αₜ = `prune` / 2 · (1 + cos(π t / `anneal`)); the change of its mask, `mask` coded against the old one, travels beside
its values.

Both: a client trains x̂ ∘ m, the server averages every coordinate over the clients that hold it, by samples, and a
coordinate that none holds stays. Differs from DisPFL: a server and one x̂ in place of neighbours that exchange models;
the same density in every layer in place of ERK; the broadcast is dense, since all clients share it; first masks that
differ by client; biases and norms dense. Differs from its authors' code: counts rounded down, not up; a weight is not
regrown in the round that drops it; averages by samples, not plain; no clipping of gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Context, Mask, trace
from thinwire.codecs.entries import add
from thinwire.errors import ConfigError, DecodeError, QuorumError
from thinwire.frame import Section
from thinwire.methods import base, selection
from thinwire.methods.base import ClientState, Data, Method, Setup, Update
from thinwire.methods.fedavg import Global, Options, State, build
from thinwire.methods.saliency import gradient
from thinwire.methods.sparse import Prunable, Sparse
from thinwire.parameterisations import Dense
from thinwire.versions import Held

T = TypeVar("T", State, Global)


@dataclass(frozen=True)
class ClientMasksOptions(Options):
    """FedAvg's settings; density: of every layer under each client's mask."""

    density: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise ConfigError("method.density", self.density, "above 0, at most 1")


@dataclass(frozen=True)
class SparseUpdate(Update):
    """A change (n,) that is 0 outside the mask (n,) of the client; `next`: the mask that it goes on with."""

    client: int = 0
    mask: np.ndarray = field(default_factory=lambda: np.ones(0, np.uint8))
    next: bytes = b""


class ClientMasks(Prunable):
    """FedAvg in which every client has a part of the weights."""

    options: ClientMasksOptions

    def first(self, client: int) -> np.ndarray:
        """The mask (n,) that a client begins with."""
        scores = selection.random_scores(rng.integer(self.setup.seed, 0, client, "selection"), self.weights.size)
        return selection.whole(self.flat.layout, selection.layerwise(scores, self.weights, self.options.density))

    def own(self, client: int, state: ClientState) -> np.ndarray:
        """The mask (n,) that a client has."""
        return self.first(client)

    def over(self, mask: np.ndarray) -> Sparse:
        """FedAvg of what a mask keeps."""
        return Sparse(self.setup, self.options, self.uplink, self.downlink, mask, self)

    def client_init(self, client: int) -> ClientState:
        """A residual begins at 0 when there is none."""
        return {}

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """FedAvg's round on x̂ ∘ m."""
        mask = self.own(data.client, state)
        return self.over(mask).train(replace(held, value=narrow(held.value, mask)), state, data)

    def evaluate(self, held: Held[Global], state: ClientState, data: Data) -> dict[str, float]:
        """Of the client's own x̂ ∘ m."""
        mask = self.own(data.client, state)
        return self.over(mask).evaluate(replace(held, value=narrow(held.value, mask)), state, data)

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change under its mask."""
        return self.spread(state, client, message, self.first(client))

    def spread(self, state: State, client: int, message: bytes, mask: np.ndarray, next: bytes = b"") -> SparseUpdate:
        """The change (n,) that a frame with the kept values (k,) makes."""
        update = self.over(mask).read(narrow(state, mask), client, message)
        change = np.zeros(mask.size, dtype=np.float32)
        change[mask.astype(bool)] = update.value
        return SparseUpdate(update.samples, change, client=client, mask=mask, next=next)

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """Σ nₖ mₖ Δₖ / Σ nₖ mₖ, 0 where no client holds the coordinate."""
        total, weight = np.zeros(self.start.size), np.zeros(self.start.size)
        for update in updates:
            assert isinstance(update, SparseUpdate)
            add(total, update.change, update.samples)
            add(weight, update.mask, update.samples)
        if not weight.any():
            raise QuorumError("no update is left")
        change = (total / np.maximum(weight, 1)).astype(np.float32)
        return self.advance(state, *self.setup.server.step(change, state.memory))


def narrow(value: T, mask: np.ndarray) -> T:
    """What a mask keeps of the weights and of their last change."""
    keep = mask.astype(bool)
    return replace(value, weights=value.weights[keep], change=None if value.change is None else value.change[keep])


@dataclass(frozen=True)
class DisPFLOptions(ClientMasksOptions):
    """prune: α₀, the fraction of a layer's weights that moves in round 0; anneal: rounds until none does."""

    prune: float = 0.5
    anneal: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prune < 1:
            raise ConfigError("method.prune", self.prune, "0 to 1, 1 excluded")
        if not 1 <= self.anneal < 1e6:
            raise ConfigError("method.anneal", self.anneal, "a number of rounds from 1 on")


@dataclass(frozen=True)
class DisPFLState(State):
    """FedAvg's state and the mask of every client that has sent one, a bit a weight."""

    clients: tuple[int, ...] = ()
    masks: tuple[bytes, ...] = ()


class DisPFL(ClientMasks):
    """Per-client masks that follow the training."""

    options: DisPFLOptions

    def init(self) -> State:
        """No client has sent a mask."""
        state = super().init()
        return DisPFLState(**{part.name: getattr(state, part.name) for part in fields(State)})

    def own(self, client: int, state: ClientState) -> np.ndarray:
        """The mask kept, else the first one."""
        packed = state.get("mask")
        return self.first(client) if packed is None else np.unpackbits(packed, count=self.start.size)

    def _against(self, old: np.ndarray) -> Context:
        """What a client's next mask is coded with: a probability for each tensor and old bit."""
        tensors = np.repeat(np.arange(len(self.weights), dtype=np.uint32), self.weights.sizes)
        return Context(self.weights, 2 * tensors + old[self.places])

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """As with a fixed mask; then the mask moves."""
        message, _, metrics = super().train(held, state, data)
        old, round = self.own(data.client, state), held.version + 1
        weights = self.flat.read()
        order = rng.generator(self.setup.seed, round, data.client, "regrow").permutation(len(data.y))
        size = self.setup.local.batch_size
        slope, _ = gradient(Dense(self.flat), data, order[:size], size)
        chosen = self.moved(weights[self.places], slope[self.places], old[self.places], held.version)
        frame = frames.read(message)
        sections = (*frame.sections, (Section.MASK, Mask().encode(chosen, self._against(old))))
        packed = np.packbits(selection.whole(self.flat.layout, chosen))
        return frames.write(replace(frame, sections=sections)), {"mask": packed}, metrics

    def moved(self, weights: np.ndarray, slope: np.ndarray, old: np.ndarray, version: int) -> np.ndarray:
        """The mask (w,) with the smallest weights of every layer replaced by those of the steepest slope."""
        progress = min(1.0, version / self.options.anneal)
        rate, chosen = self.options.prune / 2 * (1 + np.cos(np.pi * progress)), old.copy()
        for entry in self.weights:
            kept, free = (np.flatnonzero(old[entry.slice] == bit) + entry.offset for bit in (1, 0))
            count = min(int(rate * kept.size), free.size)
            chosen[kept[np.argsort(np.abs(weights[kept]), kind="stable")[:count]]] = 0
            chosen[free[np.argsort(-np.abs(slope[free]), kind="stable")[:count]]] = 1
        return chosen

    def known(self, state: State, client: int, layout: bytes) -> np.ndarray:
        """The mask that a frame's layout names: the last one of its client, or its first if it lost that."""
        assert isinstance(state, DisPFLState)
        first = self.first(client)
        if client in state.clients:
            payload = state.masks[state.clients.index(client)]
            chosen = np.unpackbits(np.frombuffer(payload, np.uint8), count=self.weights.size)
            last = selection.whole(self.flat.layout, chosen)
            return last if self.over(last).flat.layout.digest == layout else first
        return first

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change and its next mask, of as many weights in every layer."""
        frame = frames.read(message)
        old = self.known(state, client, frame.layout)
        rest = tuple(part for part in frame.sections if part[0] != Section.MASK)
        values = frames.write(replace(frame, sections=rest))
        chosen = trace.nested("mask", Mask(), frame.one(Section.MASK), self._against(old))
        for entry in self.weights:
            kept, before = (int(mask[entry.slice].sum(dtype=int)) for mask in (chosen, old[self.places]))
            if kept != before:
                raise DecodeError(f"mask: keeps {kept} weights of {entry.name}, {before} expected")
        return self.spread(state, client, values, old, np.packbits(chosen).tobytes())

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """As with fixed masks; the next ones are noted."""
        assert isinstance(state, DisPFLState)
        masks = dict(zip(state.clients, state.masks, strict=True))
        merged = super().merge(state, _note(updates, masks))
        return replace(merged, clients=tuple(masks), masks=tuple(masks.values()))  # type: ignore[call-arg]


def _note(updates: Iterable[Update], masks: dict[int, bytes]) -> Iterator[Update]:
    """The updates; their clients' next masks are entered on the way."""
    for update in updates:
        assert isinstance(update, SparseUpdate)
        masks[update.client] = update.next
        yield update


def _checked(name: str, setup: Setup) -> None:
    if setup.parameterisation:
        raise ConfigError("parameterisation.name", setup.parameterisation.id, f"dense for {name}: it masks weights")
    if setup.server.rule != "mean":
        raise ConfigError("server.optimizer", setup.server, f"one that takes a mean, for {name}")
    base.plain_mean(setup, name, "each coordinate has clients of its own")


def client_masks(setup: Setup, options: Mapping[str, Any]) -> Method:
    """Per-client random masks over a set-up."""
    _checked("client-masks", setup)
    return build("client-masks", ClientMasks, ClientMasksOptions, setup, options)


def dispfl(setup: Setup, options: Mapping[str, Any]) -> Method:
    """DisPFL over a set-up."""
    _checked("dispfl", setup)
    if setup.error_feedback:
        raise ConfigError("uplink.error_feedback", True, "false for dispfl: what is sent changes with the mask")
    return build("dispfl", DisPFL, DisPFLOptions, setup, options)
