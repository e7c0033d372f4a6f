"""What a method is: a frozen record of plain functions over plain values. State in, state out, bytes across."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Codec, Context, at, tag, to_config
from thinwire.codecs.config import require
from thinwire.codecs.entries import Vector, dense
from thinwire.errors import ConfigError, DecodeError
from thinwire.exact import exact_draws
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import aggregate
from thinwire.methods.server import Mean, ServerOptimizer
from thinwire.parameterisations import Parameterisation, parameterise
from thinwire.purity import drawing
from thinwire.tensors import check
from thinwire.train import Local
from thinwire.versions import Held

ServerState = Any  # a frozen dataclass of the method's own: arrays, whole numbers, bytes, tuples of bytes, History
ClientState = dict[str, np.ndarray]  # what one client keeps between rounds; empty for a method without memory
Trained = tuple[bytes, ClientState, dict[str, float]]  # a client's frame, its pending state, its metrics


@dataclass(frozen=True)
class Setup:
    """What a method is built from; server and clients are given the same one.

    error_feedback: the share β of what coding an update lost that the client's next one takes up, no, yes or between.
    """

    build: Callable[[], nn.Module]
    local: Local
    seed: int = 0
    run: int = 0  # what the other settings come to; `settle` adds the codecs
    fraction: float = 1.0
    device: str = "cpu"
    uplink: Codec | None = None
    downlink: Codec | None = None
    error_feedback: bool | float = False
    server: ServerOptimizer = field(default_factory=Mean)
    aggregate: aggregate.Mean = field(default_factory=aggregate.Mean)
    max_update_norm: float = math.inf
    max_votes_against: float = 1.0
    parameterisation: Parameterisation | None = None
    clients: int = 0  # that may take part, all together


@dataclass(frozen=True)
class Data:
    """One client's samples: x (n, ...) float32, y (n, ...) int64; those held back for evaluation beside them."""

    client: int
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray | None = None
    test_y: np.ndarray | None = None

    @property
    def judged(self) -> tuple[np.ndarray, np.ndarray]:
        """The samples that a model is judged on: those held back, else those trained on."""
        return (self.x, self.y) if self.test_x is None or self.test_y is None else (self.test_x, self.test_y)


Work = tuple[Held, ClientState, Data]  # what one client trains from


@dataclass(frozen=True)
class Update:
    """A client's decoded and checked frame. `marginal_bits`: a named bound, what coding it alone would cost.

    change: an array (n,), or the entries of it that are not 0, which `aggregate` adds as they are.
    """

    samples: int
    change: Vector
    marginal_bits: float | None = None
    buffers: bytes = b""  # the client's payload of buffers, which `beside` has checked

    @cached_property
    def value(self) -> np.ndarray:
        """The change (n,) as an array."""
        return dense(self.change)


@dataclass(frozen=True)
class Method:
    """One algorithm. The functions hold no state between calls but scratch memory."""

    name: str
    run: int  # 32 bits that every frame carries: they stand for all settings that shape it, those of the codecs too
    parameters: int  # of the dense model that the method stands for: what bits per parameter divide by
    init: Callable[[], ServerState]
    client_init: Callable[[int], ClientState]
    cohort: Callable[[ServerState, int, np.random.Generator], list[int]]
    version: Callable[[ServerState], int]
    broadcast: Callable[[ServerState, int | None], bytes]
    receive: Callable[[bytes, Held | None, int | None], Held]
    train: Callable[[Held, ClientState, Data], Trained]
    train_together: Callable[[Sequence[Work]], list[Trained]] | None  # of clients with equally many samples
    evaluate: Callable[[Held, ClientState, Data], dict[str, float]]
    read: Callable[[ServerState, int, bytes], Update]
    mirror: Callable[[Held], ServerState | None] | None  # of what both ends hold: the state, as `read` sees it
    merge: Callable[[ServerState, Iterable[Update]], ServerState]
    model: Callable[[ServerState], nn.Module]
    ship: Callable[[ServerState, dict[str, Any]], bytes]  # the model file; the dict describes the architecture
    uplink: Codec
    downlink: Codec
    error_feedback: bool | float


def sample_cohort(fraction: float, clients: int, draw: np.random.Generator) -> list[int]:
    """Clients of a round: ⌈fraction · clients⌋, at least one, drawn without replacement, in ascending order."""
    size = max(1, round(fraction * clients))
    return sorted(int(client) for client in draw.choice(clients, size=min(size, clients), replace=False))


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A fresh model whose initial weights depend on the seed alone, with the same bits on every machine.

    The global generators of torch, numpy and Python are left as they were. ConfigError for a function that hands out
    a module or parameter again: two models would train one.
    """
    with drawing(rng.integer(seed, purpose="model-init")), exact_draws():
        model = build()
    parts = [*model.named_modules(), *model.named_parameters()]
    if shared := [name for name, part in parts if part in _made]:
        allowed = "a function that makes new modules and parameters each time it is called"
        raise ConfigError(f"model part {shared[0]}" if shared[0] else "model", type(model).__name__, allowed)
    _made.update((part, None) for _, part in parts)
    return model


_made = WeakIdKeyDictionary()  # modules and parameters that are in use in this process


def network(setup: Setup) -> nn.Module:
    """The model that clients train: the initial one of the seed, parameterised if the set-up says so."""

    def make() -> nn.Module:
        model = setup.build()
        if setup.parameterisation is None:
            return model
        check(model)  # factors have memory of their own: what shared that of a weight would not show afterwards
        return parameterise(model, setup.parameterisation, report=None)

    return seeded(make, setup.seed)


def parameters(setup: Setup, model: nn.Module) -> int:
    """Parameters of the dense model that a method's model stands for, frozen ones too."""
    dense = seeded(setup.build, setup.seed) if setup.parameterisation else model
    return sum(parameter.numel() for parameter in dense.parameters())


def update_frame(setup: Setup, codec: Codec, version: int, x: np.ndarray, context: Context, samples: int) -> bytes:
    """A client's answer: one section, whose sort says whether the shared array was used."""
    section = Section.VALUES if context.shared is None else Section.VALUES_SHARED
    sections = ((section, at(codec, version).encode(x, context)),)
    layout = context.layout.digest
    return frames.write(Frame(Kind.UPDATE, setup.run, version, tag(codec), layout, sections, samples=samples))


def read_update(setup: Setup, codec: Codec, version: int, layout: bytes, data: bytes) -> Frame:
    """A client's frame, checked against run, round, codec and layout; DecodeError with the reason."""
    frame = frames.read(data)
    frames.expect(frame, run=setup.run, kinds=(Kind.UPDATE,), round=version, codec=tag(codec), layout=layout)
    if not frame.samples:
        raise DecodeError("update: 0 samples")
    return frame


def codec_for(codec: Codec | None, default: Codec, dtype: str, where: str) -> Codec:
    """The codec chosen, or the default; ConfigError if it is for arrays of another kind."""
    chosen = codec or default
    if chosen.dtype != dtype:
        raise ConfigError(where, chosen.id, f"a codec for {dtype} arrays, {default.id} for example")
    require(where, chosen, dtype)
    return chosen


def settle(setup: Setup, uplink: Codec, downlink: Codec) -> tuple[Setup, Codec, Codec]:
    """The chosen codecs, or these defaults, and the set-up with a run id that stands for their configuration too.

    A frame names its codec by 16 bits of the configuration, which collide (`topk` with keep = 0.008 and 0.012): ends
    that differ are of two runs, and the first frame says so.
    """
    up = codec_for(setup.uplink, uplink, uplink.dtype, "uplink")
    down = codec_for(setup.downlink, downlink, downlink.dtype, "downlink")
    told = json.dumps([to_config(up), to_config(down)], sort_keys=True).encode()
    return replace(setup, run=crc32(told, setup.run)), up, down


def check_defences(setup: Setup, name: str) -> None:
    """ConfigError for a defence that a method of changes cannot have, or that its cohort is too small for."""
    if setup.max_votes_against < 1:
        raise ConfigError("server.max_votes_against", setup.max_votes_against, f"1 for {name}: its clients do not vote")
    if setup.aggregate != aggregate.Mean() and setup.server.rule != "mean":
        raise ConfigError("server.aggregate", setup.aggregate, f"mean with optimizer = {setup.server.rule!r}")
    if setup.clients:
        setup.aggregate.check(max(1, round(setup.fraction * setup.clients)))


def plain_mean(setup: Setup, name: str, reason: str) -> None:
    """ConfigError unless the changes are averaged: `reason` says why the method needs it."""
    if setup.aggregate != aggregate.Mean():
        raise ConfigError("server.aggregate", setup.aggregate, f"mean for {name}: {reason}")
