"""Federated training on one machine: rounds, cohorts, every byte encoded, sent, decoded and counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.errors import DecodeError, QuorumError, TrainingError
from thinwire.frame import Kind
from thinwire.methods import Method, Update
from thinwire.runtime.client import ENVELOPE_BYTES, EVALUATE, NEVER, TRAIN, Answer
from thinwire.runtime.contents import opened, sort_of
from thinwire.runtime.ledger import Round, Traffic
from thinwire.runtime.link import Crossings
from thinwire.runtime.pool import Pool, Task
from thinwire.runtime.records import Records

STOP, REPEAT, SKIP = WITHOUT_QUORUM = ("stop", "repeat", "skip")  # what becomes of a round without quorum


@dataclass
class Progress:
    """All that a run consists of after a round: what a checkpoint saves.

    server: the method's state. have: version each client proved to hold. accepted: version last accepted from each.
    records: what the simulated clients keep for themselves. played: rounds so far, those among them that were skipped
    too. tries: cohorts asked so far; as many as rounds unless one was left without quorum.
    """

    server: Any
    have: dict[int, int] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    records: Records = field(default_factory=Records)
    played: int = 0
    tries: int = 0


class Simulation:
    """A method, its clients in a pool, and the rounds that they play. `play` is a function of the progress given."""

    def __init__(
        self,
        method: Method,
        pool: Pool,
        clients: Sequence[int],
        seed: int,
        evaluation_pool: Pool | None = None,
        *,
        oversample: float = 1.0,
        min_replies: int = 1,
        without_quorum: str = STOP,
        tries: int = 1,
    ) -> None:
        self.method, self.pool, self.clients, self.seed = method, pool, clients, seed
        self.evaluation_pool = evaluation_pool  # where `pool` only watches one that it must not watch evaluating
        self.oversample, self.min_replies = oversample, min_replies
        self.without_quorum, self.tries = without_quorum, tries if without_quorum == REPEAT else 1
        self.synced: int | None = None  # version that the pool's processes hold

    def play(self, progress: Progress) -> tuple[Progress, RoundWork]:
        """One round: broadcast, train, read, merge; without quorum again, or skipped, or the end of the run.

        A try without quorum leaves all as it was but the traffic. TrainingError when a loss is not finite, or for want
        of a quorum.
        """
        work = RoundWork(self, progress)
        while True:
            try:
                server = self.method.merge(progress.server, work.updates())
            except QuorumError as error:
                last = work.tries == self.tries
                if last and self.without_quorum != SKIP:
                    raise TrainingError(f"round {work.round}: {error}{work.reasons}") from None
                work.undo(str(error))
                if last:
                    return work.skip(str(error)), work
            except TrainingError as error:
                raise TrainingError(f"{error}{work.reasons}") from None
            else:
                return work.done(server), work

    def send(
        self,
        progress: Progress,
        asked: dict[int, int | None],
        purpose: str = TRAIN,
        enough: int | None = None,
    ) -> Sending:
        """Broadcast to clients by the version that each holds; clients that hold the same one get the same bytes."""
        start = perf_counter()
        messages = {have: self.method.broadcast(progress.server, have) for have in dict.fromkeys(asked.values())}
        sync = self.method.broadcast(progress.server, self.synced)
        seconds = perf_counter() - start
        numbers = {have: number for number, have in enumerate(messages)}
        tasks = []
        for client, have in asked.items():
            fetch = partial(progress.records.of, client)
            accepted, number = progress.accepted.get(client, NEVER), progress.tries + 1
            tasks.append(Task(client, numbers[have], accepted, fetch, purpose, number))
        pool = self.evaluation_pool or self.pool if purpose == EVALUATE else self.pool
        pool.begin(sync, list(messages.values()))
        self.synced = self.method.version(progress.server)
        sizes = {client: ENVELOPE_BYTES + len(messages[have]) for client, have in asked.items()}
        sorts = {have: sort_of(message) for have, message in messages.items()}
        of_clients = {client: sorts[have] for client, have in asked.items()}
        return Sending(sizes, of_clients, pool.answers(tasks, enough), seconds)


def _others(chosen: Sequence[int], clients: int, most: int, draw: np.random.Generator) -> list[int]:
    """Up to `most` of the clients that are not among those chosen."""
    size = min(most, clients - len(chosen))
    if not size:
        return []
    ranks = draw.choice(clients - len(chosen), size=size, replace=False)  # among the others
    return (ranks + np.searchsorted(np.sort(chosen) - np.arange(len(chosen)), ranks, side="right")).tolist()


def check_request(frame: bytes) -> None:
    """DecodeError unless a frame is a client's request for a keyframe."""
    frames.expect(frames.read(frame), kinds=(Kind.REQUEST,))


@dataclass(frozen=True)
class Sending:
    """Bytes and sort of the message to each client, the clients' answers as they come, and what the encoding took."""

    sizes: dict[int, int]
    sorts: dict[int, str]
    answers: Iterator[Answer]
    encode_seconds: float


class RoundWork:
    """One round under way: who is asked, what crosses, who is dropped and why, what it costs."""

    def __init__(self, simulation: Simulation, progress: Progress) -> None:
        self.simulation, self.method, self.server = simulation, simulation.method, progress.server
        self.version, self.round = self.method.version(progress.server), progress.played + 1
        self.before, self.tries, self.skipped = progress, 0, ""
        self.traffic, self.crossings = Traffic(self.method.parameters), Crossings()
        self.dropped: list[dict[str, Any]] = []
        self.sort = ""  # of all updates of this round
        self.seconds: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        """Where the last round left server and clients."""
        self.have, self.accepted = dict(self.before.have), dict(self.before.accepted)
        self.records = self.before.records.copy()
        self.train_losses: dict[int, float] = {}

    @property
    def try_number(self) -> int:
        """Of this try in the run, counted from 1: a round without quorum draws anew. The round's number until then."""
        return self.before.tries + self.tries

    def undo(self, reason: str) -> None:
        """Back to where the round began: what was read in this try does not count."""
        for client in self.train_losses:
            self._drop(client, f"not merged: {reason}")
        self._begin()

    def done(self, server: Any) -> Progress:
        """The progress that the round has made."""
        return Progress(server, self.have, self.accepted, self.records, self.round, self.try_number)

    def skip(self, reason: str) -> Progress:
        """The progress when the round is given up: but for its number, that of before."""
        self.skipped = reason
        return replace(self.before, played=self.round, tries=self.try_number)

    @property
    def reasons(self) -> str:
        """Why the first three clients were dropped."""
        reasons = "; ".join(f"client {drop['client']}: {drop['reason']}" for drop in self.dropped[:3])
        return f" ({reasons})" if reasons else ""

    def updates(self) -> Iterator[Update]:
        """Accepted updates: those of the cohort in its order, then those of clients that had to ask for a keyframe."""
        self.tries += 1
        cohort, enough = self._cohort()
        asked: list[int] = []
        for answer in self._send({client: self.have.get(client) for client in cohort}, enough):
            if answer.status == "keyframe":
                asked += self._asks(answer)
            else:
                yield from self._accept(answer)
        for answer in self._send(dict.fromkeys(asked)) if asked else ():
            yield from self._accept(answer)
        self._check_quorum()

    def _cohort(self) -> tuple[list[int], int]:
        """Clients asked, in ascending order, and how many of them the round waits for."""
        draw = rng.generator(self.simulation.seed, self.try_number, purpose="cohort")
        clients = self.simulation.clients
        chosen = self.method.cohort(self.server, len(clients), draw)
        spare = math.ceil((self.simulation.oversample - 1) * len(chosen))
        asked = sorted([*chosen, *_others(chosen, len(clients), spare, draw)])
        return [clients[number] for number in asked], len(chosen)

    def _check_quorum(self) -> None:
        """QuorumError when a round has updates, but fewer than it must have."""
        least, got = self.simulation.min_replies, len(self.train_losses)
        if 0 < got < least:
            raise QuorumError(f"{got} updates, cohort.min_replies is {least}")

    def _send(self, cohort: dict[int, int | None], enough: int | None = None) -> Iterator[Answer]:
        """Broadcast to clients by the version that each holds."""
        progress = Progress(self.server, self.have, self.accepted, self.records, tries=self.try_number - 1)
        sending = self.simulation.send(progress, cohort, enough=enough)
        self._add("server_encode", sending.encode_seconds)
        self.traffic.sent(sending.sizes, sending.sorts)
        self.crossings.sent(sending.sizes)
        return sending.answers

    def _accept(self, answer: Answer) -> Iterator[Update]:
        """The update of an answer, unless its frame is refused; a stopped client ends the run."""
        if answer.status == "stop":
            raise TrainingError(answer.reason)
        if answer.status == "keyframe":
            return self._refuse(answer, "asked for a keyframe twice")
        if answer.status != "done":
            return self._drop(answer.client, answer.reason)
        self.records[answer.client] = answer.record
        try:
            with self.timed("server_decode"):
                read = partial(self.method.read, self.server, answer.client, answer.frame)
                update, parts = opened(read, len(answer.frame))
        except DecodeError as error:
            return self._refuse(answer, str(error))
        self.have[answer.client] = self.accepted[answer.client] = self.version
        self._note(answer, update, parts)
        yield update

    def _asks(self, answer: Answer) -> list[int]:
        """The client that asks for a keyframe; none when its request is refused."""
        try:
            check_request(answer.frame)
        except DecodeError as error:
            self._refuse(answer, str(error))
            return []
        self._receive(answer, "request")
        return [answer.client]

    def _receive(self, answer: Answer, sort: str) -> None:
        self.traffic.received(len(answer.frame), sort)
        self.crossings.received(answer.client, len(answer.frame))

    def _refuse(self, answer: Answer, reason: str) -> None:
        """What crossed counts, be it of no use."""
        self._receive(answer, "refused")
        self._drop(answer.client, reason)

    def _drop(self, client: int, reason: str) -> None:
        self.dropped.append({"client": client, "reason": reason})

    def _note(self, answer: Answer, update: Update, parts: Counter[str]) -> None:
        self.sort = self.sort or sort_of(answer.frame)
        self._receive(answer, self.sort)
        self.traffic.up_parts.update(parts)
        self.train_losses[answer.client] = answer.metrics["loss"]
        for stage in ("client_decode", "client_train"):
            self._add(stage, answer.metrics[stage])
        if update.marginal_bits is not None:
            self.traffic.marginal_bits.append(update.marginal_bits)

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds spent inside to a stage."""
        start = perf_counter()
        yield
        self._add(stage, perf_counter() - start)

    def entry(self, accuracy: float | None, loss: float | None, total_before: int) -> Round:
        """The round's line in the ledger."""
        traffic = self.traffic
        crossed = sum(traffic.up) + sum(traffic.down) + traffic.evaluate_bytes
        return Round(
            round=self.round,
            accuracy=accuracy,
            loss=loss,
            train_loss=sum(self.train_losses.values()) / len(self.train_losses) if self.train_losses else None,
            up_bytes=sum(traffic.up),
            down_bytes=sum(traffic.down),
            evaluate_bytes=traffic.evaluate_bytes,
            up_bpp=traffic.bpp(traffic.up),
            up_bpp_marginal=traffic.marginal_bpp,
            down_bpp=traffic.bpp(traffic.down),
            total_bytes=total_before + crossed,
            clients=len(self.train_losses),
            error_feedback=self.method.error_feedback,
            dropped=self.dropped,
            seconds={stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            up_by_sort=dict(traffic.up_by_sort),
            down_by_sort=dict(traffic.down_by_sort),
            up_parts=dict(traffic.up_parts),
            tries=self.tries,
            skipped=self.skipped or None,
        )
