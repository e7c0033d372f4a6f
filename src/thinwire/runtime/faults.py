"""Faults of a simulated run: what gets lost or broken on the way, and clients that send what they should not.

What happens to an answer on the way is drawn from (seed, try, client, "faults"). A try is one asking of a cohort: a
round has several if it is repeated. If the draw gives several faults, only the first in this order happens:

drop: the answer is lost. delay, deadline: it takes Exp(delay) seconds, and is lost if that is longer than the deadline;
nobody waits, the time is only calculated. mutate: bits are flipped, bytes are changed, or the end is cut off. replay:
the server gets the frame that it last accepted from this client, or the new frame if there is no older one.
wrong_layout: the frame names another model, and its checksum is right.

Malicious clients are given fractions of all clients, drawn once from (seed, "faults"); each does one thing. They train
as they should, but encode something else with the method's own codec. sign_flip: −Δ. scale: scale_by · Δ, which is
the opposite if scale_by is below 0. nan: NaN everywhere; if the codec refuses NaN, the client fails. If the update is a
mask m, sign_flip sends 1 − m, scale sends all ones, and the codec refuses NaN. SSFL's saliencies stay honest. A
malicious client trains twice, so that it keeps the state that an honest one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.codecs import Codec
from thinwire.methods import METHODS, Data, Method
from thinwire.methods.base import ClientState
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import TRAIN, Answer, settle
from thinwire.runtime.experiment import FaultSettings
from thinwire.runtime.pool import Pool, Task
from thinwire.runtime.state import arrays_from_bytes
from thinwire.versions import Held

PURPOSE = "faults"
MALICIOUS = ("sign_flip", "scale", "nan")
SENT = "faults.sent"  # in a client's state under `replay`: the frame that the server last accepted


# on the way ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """What becomes of one answer: `lost` says why none comes, `kind` what happens to it; `draw` for the details."""

    lost: str
    kind: str
    draw: np.random.Generator


def fate_of(settings: FaultSettings, seed: int, task: Task) -> Fate:
    """The fate of a task's answer. As many draws whatever the rates: one rate changes nothing else."""
    draw = rng.generator(seed, task.try_number, task.client, PURPOSE)
    seconds, luck = settings.delay * draw.exponential(), draw.random(4)
    happens = luck < [settings.drop, settings.mutate, settings.replay, settings.wrong_layout]
    lost = "dropped on the way" if happens[0] else ""
    if not lost and settings.deadline is not None and seconds > settings.deadline:
        lost = f"late: {seconds:.1f} s, faults.deadline is {settings.deadline:g}"
    kinds = [kind for kind, hit in zip(("mutate", "replay", "wrong_layout"), happens[1:], strict=True) if hit]
    return Fate(lost, kinds[0] if kinds else "", draw)


class Faulty:
    """A pool whose answers meet their fate; clients whose answer gets lost are not made to train for it."""

    may_be_late: ClassVar[bool] = False

    def __init__(self, pool: Pool, settings: FaultSettings, seed: int) -> None:
        self.pool, self.settings, self.seed = pool, settings, seed

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round."""
        self.pool.begin(sync, broadcasts)

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks; those to an evaluation as they are."""
        fates = [fate_of(self.settings, self.seed, task) if task.purpose == TRAIN else None for task in tasks]
        reached = [task for task, fate in zip(tasks, fates, strict=True) if not (fate and fate.lost)]
        answers = self.pool.answers(reached, enough)
        for task, fate in zip(tasks, fates, strict=True):
            if fate and fate.lost:
                yield Answer(task.client, "failed", reason=fate.lost)
            else:
                answer = next(answers)
                yield _changed(answer, task, fate) if fate and answer.frame else answer

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


def _changed(answer: Answer, task: Task, fate: Fate) -> Answer:
    """The answer as it arrives. Requests for a keyframe can be mutated only."""
    if fate.kind == "mutate":
        return replace(answer, frame=mutated(answer.frame, fate.draw))
    if fate.kind == "replay" and answer.status == "done":
        return replace(answer, frame=_older(task) or answer.frame)
    if fate.kind == "wrong_layout" and answer.status == "done":
        return replace(answer, frame=of_another_layout(answer.frame))
    return answer


def mutated(frame: bytes, draw: np.random.Generator) -> bytes:
    """A frame with one to eight bits flipped, with as many bytes changed, or cut off; never what it was."""
    kind, count = draw.integers(3), draw.integers(1, 9)
    if kind == 0:
        return frame[: draw.integers(len(frame))]
    changed = np.frombuffer(frame, np.uint8).copy()
    places = draw.choice(len(frame), size=min(int(count), len(frame)), replace=False)
    flips = 1 << draw.integers(0, 8, places.size) if kind == 1 else draw.integers(1, 256, places.size)
    changed[places] ^= flips.astype(np.uint8)
    return changed.tobytes()


def of_another_layout(frame: bytes) -> bytes:
    """A frame that names another layout, checksum and all."""
    honest = frames.read(frame)
    return frames.write(replace(honest, layout=bytes(byte ^ 0xFF for byte in honest.layout)))


def _older(task: Task) -> bytes:
    """The frame that the server last accepted from a task's client; empty before there is one."""
    state = arrays_from_bytes(settle(task.fetch(), task.accepted).state)
    return state[SENT].tobytes() if SENT in state else b""


# malicious clients ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deceit:
    """A method as the clients of a run play it: some send what they should not, all remember what may be replayed."""

    assembly: Assembly
    settings: FaultSettings

    @cached_property
    def liars(self) -> dict[int, str]:
        """What each malicious client does."""
        clients, seed = self.assembly.clients, self.assembly.experiment.seed
        order = iter(rng.generator(seed, purpose=PURPOSE).permutation(clients).tolist())
        counts = {kind: round(getattr(self.settings, kind) * len(clients)) for kind in MALICIOUS}
        return {client: kind for kind, count in counts.items() for client, _ in zip(order, range(count), strict=False)}

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The method as a malicious client plays it, by what it does."""
        assembly, found = self.assembly, {}
        for kind in sorted(set(self.liars.values())):
            uplink = lying(assembly.method.uplink, partial(tampered, kind=kind, factor=self.settings.scale_by))
            settings = dict(assembly.experiment.method)
            found[kind] = METHODS[settings.pop("name")](replace(assembly.setup, uplink=uplink), settings)
        return found

    def train(self, held: Held, state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """A client's round: an honest one's state, its frame or another."""
        state = self._own(state, data)
        frame, pending, metrics = self.assembly.method.train(held, state, data)
        if kind := self.liars.get(data.client):
            frame, _, _ = self.methods[kind].train(held, state, data)
        if self.settings.replay:
            pending = pending | {SENT: np.frombuffer(frame, dtype=np.uint8)}
        return frame, pending, metrics

    def evaluate(self, held: Held, state: ClientState, data: Data) -> dict[str, float]:
        """As an honest client."""
        return self.assembly.method.evaluate(held, self._own(state, data), data)

    def _own(self, state: ClientState, data: Data) -> ClientState:
        """What the method itself keeps."""
        own = {name: array for name, array in state.items() if name != SENT}
        return own or self.assembly.method.client_init(data.client)


def tampered(x: np.ndarray, kind: str, factor: float) -> np.ndarray:
    """What a malicious client encodes in place of an update (n,) float32 or a mask (n,) uint8."""
    if x.dtype == np.uint8:
        return {"sign_flip": 1 - x, "scale": np.ones_like(x), "nan": np.full_like(x, 255)}[kind]
    with np.errstate(over="ignore"):
        return x * np.float32({"sign_flip": -1, "scale": factor, "nan": np.nan}[kind])


def lying(codec: Codec, change: Callable[[np.ndarray], np.ndarray]) -> Codec:
    """The codec, of the same id and configuration, that encodes something else than it is given."""
    honest: Any = type(codec)

    class Lying(honest):
        def encode(self, x: np.ndarray, context: Any) -> bytes:
            return super().encode(change(x), context)

    return Lying(**{field.name: getattr(codec, field.name) for field in fields(honest)})


# both ----------------------------------------------------------------------------------------------------------------


def played(assembly: Assembly) -> Method:
    """The method as the clients of a run play it."""
    settings = assembly.experiment.faults
    deceit = Deceit(assembly, settings)
    if not deceit.liars and not settings.replay:
        return assembly.method
    deceit.methods  # noqa: B018  built before workers are forked, which then share them
    return replace(assembly.method, train=deceit.train, evaluate=deceit.evaluate)


def faulty(pool: Pool, assembly: Assembly) -> Pool:
    """The pool with the faults that the experiment has on the way."""
    settings = assembly.experiment.faults
    return Faulty(pool, settings, assembly.experiment.seed) if settings.any else pool
