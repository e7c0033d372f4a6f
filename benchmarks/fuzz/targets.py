"""What reads bytes from outside: every codec, the frame, both ends of every method and of the Flower drop-in.

A target has honest bytes (`samples`), what reads them, and what must hold of what it makes of others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from benchmarks.fuzz.mutators import mended, mutant
from thinwire import frame as frames
from thinwire.codecs import CODECS, Codec, Context, at, carries
from thinwire.codecs.base import CARRIED
from thinwire.errors import ConfigError, DecodeError, NeedKeyframe
from thinwire.frame import Frame, Kind, Section
from thinwire.layout import Layout
from thinwire.methods import METHODS, PRESETS, Update
from thinwire.runtime.assembly import assemble
from thinwire.runtime.client import RESULT, Answer, Clients, open_envelope
from thinwire.runtime.evaluation import read_result
from thinwire.runtime.experiment import merge, parse
from thinwire.runtime.pool import Inline
from thinwire.runtime.progress import Progress
from thinwire.runtime.simulate import Simulation
from thinwire.tensors import layout_of
from thinwire.versions import Held

LAYOUT = Layout.of({"conv": (6, 3, 3), "scale": (), "none": (0,), "bias": (9,), "fc": (24, 12)})
REFUSALS = (DecodeError, NeedKeyframe)
CLASSES, FEATURES = 3, 6


@dataclass(frozen=True)
class Target:
    """read: what the bytes make, or one of REFUSALS. holds: of what was made of a mutant. mutate: as `mutant`."""

    name: str
    samples: tuple[bytes, ...]
    read: Callable[[bytes], Any]
    holds: Callable[[bytes, Any], bool]
    layout_bytes: int
    mutate: Callable[..., bytes] = mutant


# Codecs.


def arrays(codec: Codec, n: int) -> list[np.ndarray]:
    """(n,) arrays of the codec's dtype: rare and frequent, small and large."""
    draw = np.random.default_rng(4)
    if codec.dtype == "uint8":
        return [(draw.random(n) < p).astype(np.uint8) for p in (0.02, 0.5)]
    if codec.dtype == "uint32":  # label coders take numbers up to their `most`
        bounds = (k for k in (3, 200, 5000) if k <= getattr(codec, "most", k))
        return [draw.integers(0, k + 1, n).astype(np.uint32) for k in bounds]
    return [(s * draw.standard_normal(n)).astype(np.float32) for s in (0.01, 100)]


def contexts(dtype: str, n: int) -> list[Context]:
    """Contexts with and without a shared array."""
    draw = np.random.default_rng(5)
    if dtype == "float32":
        return [Context(LAYOUT), Context(LAYOUT, draw.standard_normal(n).astype(np.float32), 7)]
    counts = [draw.integers(0, k, n).astype(np.uint32) for k in (8, 10**6)]
    return [Context(LAYOUT), *(Context(LAYOUT, shared) for shared in counts)]


def codec_targets() -> Iterator[Target]:
    """Payloads of every codec of the table, alone and with what both ends share."""
    for name, build in CODECS.items():
        codec = build()
        for number, context in enumerate(contexts(codec.dtype, LAYOUT.size)):
            samples = tuple(codec.encode(x, context) for x in arrays(codec, LAYOUT.size))
            read = partial(codec.decode, context=context)
            yield Target(f"codec {name} {number}", samples, read, partial(_is_array, codec.dtype), 4 * LAYOUT.size)


NESTINGS = 40
VALUES: dict[type, tuple[Any, ...]] = {float: (0.01, 0.3, 1.0), int: (1, 2, 5, 8), bool: (True, False)}


def nested_codec(draw: np.random.Generator, dtype: str, depth: int = 3) -> Codec:
    """A codec of any class for arrays of this dtype, codecs of any class in it, fields of any value that it takes."""
    fitting = [kind for kind in CODECS.values() if kind.dtype == dtype and carries(kind) == CARRIED[dtype]]
    holding = [kind for kind in fitting if any(isinstance(value, Codec) for value in vars(kind()).values())]
    among = holding if holding and draw.random() < depth / 3 else fitting
    codec = among[draw.integers(len(among))]()
    for field in fields(codec):  # type: ignore[arg-type]
        held = getattr(codec, field.name)
        with suppress(ConfigError):  # keeps what it has
            codec = replace(codec, **{field.name: _another(draw, held, depth)})  # type: ignore[type-var]
    return codec


def _another(draw: np.random.Generator, held: Any, depth: int) -> Any:
    if isinstance(held, Codec):
        return nested_codec(draw, held.dtype, depth - 1) if depth else held
    if isinstance(held, tuple):
        return tuple(_another(draw, one, depth) for one in held)
    values = VALUES.get(type(held), (held,))
    return values[draw.integers(len(values))]


def nested_targets() -> Iterator[Target]:
    """Payloads of random codecs in codecs."""
    draw, context = np.random.default_rng(8), contexts("float32", LAYOUT.size)[1]
    for number in range(NESTINGS):
        codec = at(nested_codec(draw, "float32"), 0)
        samples = tuple(codec.encode(x, context) for x in arrays(codec, LAYOUT.size))
        read = partial(codec.decode, context=context)
        yield Target(f"codec nested {number}", samples, read, partial(_is_array, "float32"), 4 * LAYOUT.size)


def _is_array(dtype: str, data: bytes, made: np.ndarray) -> bool:
    return made.shape == (LAYOUT.size,) and made.dtype == dtype


# Frames.


def real_frames() -> Iterator[bytes]:
    """One frame of each kind that crosses."""
    sections = ((Section.VALUES, b"values of a codec"), (Section.TOTAL, b"\5"))
    yield frames.write(Frame(Kind.UPDATE, 1, 2, 3, b"layout-8", sections, samples=40))
    yield frames.write(Frame(Kind.STEP, 1, 9, 3, b"layout-8", ((Section.STEP, b"abc"),) * 5, base=4))
    yield frames.write(Frame(Kind.KEYFRAME, 1, 9, 3, b"layout-8", ((Section.SEED, bytes(16)), *sections)))
    yield frames.write(Frame(Kind.REQUEST, 1, 9, 0, bytes(8)))


def mended_mutant(samples: tuple[bytes, ...], index: int, draw: np.random.Generator) -> bytes:
    """A mutant whose checksum fits."""
    return mended(mutant(samples, index, draw))


def inner_mutant(samples: tuple[bytes, ...], index: int, draw: np.random.Generator) -> bytes:
    """An honest frame one of whose payloads alone is a mutant; a frame without payloads as `mended_mutant`."""
    try:
        frame = frames.read(samples[draw.integers(len(samples))])
        other = frames.read(samples[draw.integers(len(samples))])
    except DecodeError:  # what came to the samples later
        return mended_mutant(samples, index, draw)
    payloads = [payload for _, payload in (*frame.sections, *other.sections) if payload]
    if not frame.sections or not payloads:
        return mended_mutant(samples, index, draw)
    at = draw.integers(len(frame.sections))
    payload = mutant([frame.sections[at][1] or payloads[0], *payloads], index, draw)
    sections = tuple((sort, payload if i == at else held) for i, (sort, held) in enumerate(frame.sections))
    return frames.write(replace(frame, sections=sections))


def framed_mutant(samples: tuple[bytes, ...], index: int, draw: np.random.Generator) -> bytes:
    """A quarter as they are, a quarter with a checksum that fits, half in a payload alone."""
    turn = index // 8 % 4
    return (mutant, mended_mutant, inner_mutant, inner_mutant)[turn](samples, index, draw)


def frame_targets() -> Iterator[Target]:
    """The frame's reader, the envelope's, the one of results of an evaluation."""
    samples = tuple(real_frames())
    yield Target("frame", samples, frames.read, lambda data, frame: frames.write(frame) == data, 0, mended_mutant)
    envelopes = tuple(struct.pack("<I", 3) + sample for sample in samples)
    yield Target("envelope", envelopes, lambda d: frames.read(open_envelope(d)[1]), lambda d, made: True, 0)
    results = (RESULT.pack(3, 10, 0.5, 1.2), RESULT.pack(3, 2**31, 1.0, 0.0))
    read = lambda data: read_result(Answer(1, "done", data), 3)  # noqa: E731
    yield Target("result", results, read, lambda data, score: 0 <= score.accuracy <= 1, 0)


# Methods: what a server reads, what a client receives.


def blobs() -> tuple[Any, Any]:
    """Three Gaussian clouds: ((x, y), (x, y)) for train and test."""
    draw = np.random.default_rng(6)
    y = np.arange(60) % CLASSES
    x = (3 * np.eye(CLASSES, FEATURES)[y] + draw.standard_normal((60, FEATURES))).astype(np.float32)
    return (x, y), (x[:30], y[:30])


def network() -> nn.Module:
    """Wide enough for factors."""
    return nn.Sequential(nn.Linear(FEATURES, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, CLASSES))


FEEDBACK: dict[str, Any] = {"uplink": {"id": "fedzip", "error_feedback": True}, "downlink": {"id": "float16"}}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": {"name": name}} for name in METHODS if name != "local"},
    "fedavg half": {"method": {"name": "fedavg"}, "uplink": {"id": "float16"}, "downlink": {"id": "float16"}},
    "fedavg fedzip": {"method": {"name": "fedavg"}, **FEEDBACK},
    "fedavg thin": {"method": {"name": "fedavg"}, "uplink": {"id": "thin"}, "downlink": {"id": "thin"}},
    "ssfl m22": {"method": {"name": "ssfl"}, "uplink": {"id": "m22"}, "downlink": {"id": "m22"}},
    "pfedpara": PRESETS["pfedpara"],
    "fedpara stc": merge(PRESETS["fedpara"], {"uplink": {"id": "stc"}, "downlink": {"id": "stc"}}),
    "mv-signsgd": PRESETS["mv-signsgd"],
}
SMALL = {
    "seed": 3, "device": "cpu", "data": {"load": "benchmarks.fuzz.targets:blobs", "clients": 3},
    "model": {"build": "benchmarks.fuzz.targets:network"}, "local": {"batch_size": 8, "lr": 0.1},
}  # fmt: skip


class Watched(Inline):
    """Clients in this process; what they answer is kept."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.up: list[bytes] = []

    def answers(self, tasks: Any, enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks."""
        for answer in super().answers(tasks, enough):
            self.up.append(answer.frame)
            yield answer


class Federation:
    """One method after a few honest rounds: real frames of both directions, and both ends' states.

    state: the server's that the last answers are for. held: what clients held then; before: a version earlier.
    """

    def __init__(self, case: str, rounds: int = 4) -> None:
        assembly = assemble(parse(merge(SMALL, CASES[case])))
        self.method = assembly.method
        self.pool = Watched(Clients(self.method, assembly.client_data, assembly.run_id))
        simulation = Simulation(self.method, self.pool, assembly.clients, 3)
        progress = Progress(self.method.init())
        self.broadcasts: list[bytes] = []
        self.held: Held | None = None
        for round in range(rounds):
            self.state, self.before, progress.have = progress.server, self.held, {}
            self.broadcasts += [
                self.method.broadcast(self.state, have) for have in dict.fromkeys((None, 0, max(round - 1, 0)))
            ]
            self.pool.up = []
            progress, _ = simulation.play(progress)
            self.held = self.pool.clients.replica
        self.client = assembly.clients[0]
        self.updates = [answer for answer in self.pool.up if self._mine(answer)]
        self.layout_bytes = 4 * layout_of(self.method.model(self.method.init())).size
        self.size = self.read(self.updates[0]).value.size

    def _mine(self, answer: bytes) -> bool:
        """May the first client send it? Where clients have masks of their own, the others' have another layout."""
        try:
            return bool(self.read(answer))
        except DecodeError:
            return False

    def read(self, data: bytes) -> Update:
        """What the server makes of an answer of the first client in the last round."""
        return self.method.read(self.state, self.client, data)

    def receives(self) -> Iterator[tuple[str, Callable[[bytes], Any]]]:
        """What clients make of a broadcast: one that holds nothing, the version before, an old one."""
        last = self.held.version if self.held else 0
        for name, held, have in (("new", None, None), ("behind", self.before, last - 1), ("old", self.held, 1)):
            yield name, partial(self.method.receive, held=held, have=have)


def _is_update(size: int, data: bytes, update: Update) -> bool:
    finite = bool(np.isfinite(update.value).all())
    return update.value.shape == (size,) and finite and 1 <= update.samples <= frames.MAX_SAMPLES


def method_targets() -> Iterator[Target]:
    """What the server reads and what clients receive, of every method and of some with codecs both ways."""
    for case in CASES:
        federation = Federation(case)
        bytes_, holds = federation.layout_bytes, partial(_is_update, federation.size)
        yield Target(f"{case} up", tuple(federation.updates), federation.read, holds, bytes_, framed_mutant)
        broadcasts = tuple(federation.broadcasts)
        for end, receive in federation.receives():
            is_held = lambda data, held: isinstance(held, Held)  # noqa: E731
            yield Target(f"{case} down, {end}", broadcasts, receive, is_held, bytes_, framed_mutant)
    setup = Federation("ssfl", rounds=1)
    holds = partial(_is_update, setup.size)
    yield Target("ssfl saliencies up", tuple(setup.updates), setup.read, holds, setup.layout_bytes, framed_mutant)


# The Flower drop-in, where Flower is installed.


def flower_targets() -> Iterator[Target]:
    """A node's frame as the server reads it, and the server's as a node does."""
    from flwr.app import Array, ArrayRecord, RecordDict

    from thinwire.codecs import from_config
    from thinwire.flower.dropin import downlink, uplink
    from thinwire.flower.dropin.records import unpack
    from thinwire.flower.dropin.terms import Terms

    draw = np.random.default_rng(7)

    def content() -> RecordDict:
        values = {"fc": draw.standard_normal((12, 9)).astype(np.float32), "count": np.arange(3)}
        return RecordDict({"model": ArrayRecord({name: Array(value) for name, value in values.items()})})

    codec = from_config({"id": "stc", "keep": 0.1})
    manifest, start = unpack(content())
    terms = Terms(manifest, codec, from_config({"id": "float16"}))
    first = downlink.first(5, terms, start)
    second = downlink.advance(first, terms, unpack(content())[1])
    held = downlink.receive(first.message(None), None).held
    address = uplink.Address(5, 2, 77)
    replies = [uplink.encode(address, terms, second.arrays, manifest, unpack(content())[1], None) for _ in range(3)]
    up, size = tuple(reply.frame for reply in replies), 4 * 12 * 9
    read = partial(uplink.decode, address, second)
    yield Target("flower up", up, read, lambda data, reply: len(reply.arrays) == 2, size, framed_mutant)
    down = (first.message(None), second.message(None), second.message(0))
    for name, holds in (("new", None), ("holds one", held)):
        receive = partial(downlink.receive, held=holds)
        yield Target(f"flower down, {name}", down, receive, lambda data, made: True, size, framed_mutant)


NODES = (11, 12, 13)  # the last one attacks
COUNTS: tuple[Any, ...] = (float("nan"), float("inf"), -1.0, 0, 2**24, 1e308, [3], "missing")


def pair_targets() -> Iterator[Target]:
    """What `Compressed` takes of three replies of which one is hostile: four bytes that seed what is done to its
    records, then its frame."""
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from thinwire.codecs import from_config
    from thinwire.flower.dropin import uplink
    from thinwire.flower.dropin.exchange import Exchange, Taken
    from thinwire.flower.dropin.records import frame_record, unpack

    for name in ("_run_id", "_node_id", "_task_id"):  # in whose name Flower makes messages; its runtime sets it
        setattr(TaskIdentity, name, getattr(TaskIdentity, name, None) or 1)
    draw = np.random.default_rng(9)

    def content() -> RecordDict:
        values = {"fc": draw.standard_normal((12, 9)).astype(np.float32), "count": np.arange(3)}
        return RecordDict({"model": ArrayRecord({name: Array(value) for name, value in values.items()})})

    def reply(to: Message, frame: bytes, seed: int) -> Message:
        metrics: dict[str, Any] = {"num-examples": 40, "loss": 0.5}
        record = RecordDict({"model": frame_record(frame, ""), "metrics": MetricRecord(metrics)})
        if seed:
            _tamper(np.random.default_rng(seed), record, frame)
        return Message(record, reply_to=to)

    def _tamper(draw: np.random.Generator, record: RecordDict, frame: bytes) -> None:
        turn, metrics = draw.integers(6), dict(record.metric_records["metrics"])
        if turn == 0:
            count = COUNTS[draw.integers(len(COUNTS))]
            metrics |= {"num-examples": count} if count != "missing" else {}
            if count == "missing":
                del metrics["num-examples"]
        elif turn == 1:
            metrics |= {"\x1b[2J" * 100: [1.0] * 1000}
        elif turn == 2:
            array = next(iter(record.array_records["model"].values()))
            array.dtype, array.shape = ("float64", "complex64", "uint8", "O")[draw.integers(4)], (1, len(frame))
        elif turn == 3:
            record["another"] = content()["model"]
        elif turn == 4:
            record["model"] = content()["model"]
        record["metrics"] = MetricRecord(metrics)

    for downlink in (None, "float16"):
        coded = from_config({"id": downlink}) if downlink else None
        exchange = Exchange(from_config({"id": "stc", "keep": 0.1}), coded)
        asked = content()
        sent = exchange.send(
            1, [Message(RecordDict(dict(asked)), dst_node_id=node, message_type="train") for node in NODES]
        )
        model = exchange.asked[NODES[0]]
        frames_ = [
            uplink.encode(
                uplink.Address(exchange.run, 1, node), model.terms, model.arrays, *unpack(content()), None
            ).frame
            for node in NODES
        ]

        def read(data: bytes, exchange: Exchange = exchange, sent: Any = sent, up: Any = frames_) -> Taken:
            seed = int.from_bytes(data[:4], "little")
            replies = [reply(to, frame, 0) for to, frame in zip(sent[:2], up[:2], strict=True)]
            taken = deepcopy(exchange).take(1, [*replies, reply(sent[2], data[4:], seed)], None)
            if taken.dropped and _is_taken(data, taken):
                raise DecodeError(taken.dropped[0].reason)
            return taken

        yield Target(f"flower pair {downlink} up", (bytes(4) + frames_[2],), read, _is_taken, 4 * 12 * 9, seeded_mutant)


def seeded_mutant(samples: tuple[bytes, ...], index: int, draw: np.random.Generator) -> bytes:
    """Half of the frames as they are, half gone wrong; records as they are, or in a way of their own."""
    inner = tuple(sample[4:] for sample in samples if len(sample) > 4)
    frame = inner[draw.integers(len(inner))] if index % 2 else framed_mutant(inner, index // 2, draw)
    return draw.bytes(4) + frame


def _is_taken(data: bytes, taken: Any) -> bool:
    """Are all arrays as they were asked for and finite, and only the attacker dropped, with a reason that prints?"""
    if {drop.node for drop in taken.dropped} - {NODES[-1]} or len(taken.dropped) > 1:
        return False
    if any(not drop.reason or len(str(drop)) > 300 or not drop.reason.isprintable() for drop in taken.dropped):
        return False
    good = [message for message in taken.messages if message.has_content()]
    arrays = [[array.numpy() for array in message.content["model"].values()] for message in good]
    counts = [message.content["metrics"]["num-examples"] for message in good]
    shaped = all([array.shape for array in held] == [(12, 9), (3,)] for held in arrays)
    sound = all(np.isfinite(array).all() for held in arrays for array in held)
    return len(good) + len(taken.dropped) == len(NODES) and shaped and sound and all(0 <= n <= 400 for n in counts)


def targets() -> list[Target]:
    """All of them."""
    found = [
        *codec_targets(),
        *nested_targets(),
        *frame_targets(),
        *method_targets(),
        *flower_targets(),
        *pair_targets(),
    ]
    return [replace(target, samples=tuple(sample for sample in target.samples if sample)) for target in found]
