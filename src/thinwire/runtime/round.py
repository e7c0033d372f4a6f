"""One round under way: who is asked, what crosses, who is dropped and why, what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from thinwire import frame as frames
from thinwire import rng
from thinwire.errors import DecodeError, QuorumError, TrainingError, shown
from thinwire.frame import Kind
from thinwire.methods import Update
from thinwire.runtime.client import Answer
from thinwire.runtime.contents import sort_of
from thinwire.runtime.ledger import Round, Traffic
from thinwire.runtime.link import Crossings
from thinwire.runtime.progress import Progress
from thinwire.runtime.reading import Here, Reading, Readings
from thinwire.versions import SPELT_OUT

if TYPE_CHECKING:
    from thinwire.runtime.simulate import Simulation

TIMES = ("client_decode", "client_train")  # that come with an update, none longer than its round has taken here
LARGEST_LOSS = 3.5e38  # what float32 can say; a cross-entropy is never below 0
LARGEST_NMSE = 1e100  # what float32 updates can have, and more


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
        self.sent = perf_counter()
        self._begin()

    def _begin(self) -> None:
        """Where the last round left server and clients."""
        self.have, self.accepted = dict(self.before.have), dict(self.before.accepted)
        self.records = self.before.records.copy()
        self.merged: list[int] = []  # clients whose update counts
        self.losses: list[float] = []  # of the updates, as far as their clients said a sound one
        self.errors: list[float] = []  # of the updates, where their clients measured them
        self.said: list[int] = []  # how many samples clients claim, where that is what bounds their claims
        self.missed: list[float] = []  # 1 for an update that missed its codec's target, 0 for one that met it

    @property
    def try_number(self) -> int:
        """Of this try in the run, counted from 1: a round without quorum draws anew. The round's number until then."""
        return self.before.tries + self.tries

    def undo(self, reason: str) -> None:
        """Back to where the round began: what was read in this try does not count."""
        for client in self.merged:
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
        asked: dict[int, int | None] = {}
        for answer, reading in self._send({client: self.have.get(client) for client in cohort}, enough):
            if answer.status == "keyframe":
                asked |= self._asks(answer)
            else:
                yield from self._accept(answer, reading)
        for answer, reading in self._send(asked) if asked else ():
            yield from self._accept(answer, reading)
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
        least, got = self.simulation.min_replies, len(self.merged)
        if 0 < got < least:
            raise QuorumError(f"{got} updates, cohort.min_replies is {least}")

    def _send(self, cohort: dict[int, int | None], enough: int | None = None) -> Readings:
        """Broadcast to clients by the version that each holds; their answers, read."""
        progress = Progress(self.server, self.have, self.accepted, self.records, tries=self.try_number - 1)
        self.sent = perf_counter()
        sending = self.simulation.send(progress, cohort, enough=enough)
        self._add("server_encode", sending.encode_seconds)
        self.traffic.sent(sending.sizes, sending.sorts)
        self.crossings.sent(sending.sizes)
        reader = self.simulation.reader or Here(self.method)
        return reader(self.server, self._heard(sending.answers))

    def _heard(self, answers: Iterator[Answer]) -> Iterator[Answer]:
        """The answers; where the claims of all bound that of each, all of them are there before the first is read."""
        claims = self.simulation.claims
        if not (claims and claims.own):
            return answers
        heard = list(answers)
        self.said += [said for answer in heard if answer.status == "done" and (said := frames.claim(answer.frame))]
        return iter(heard)

    def _accept(self, answer: Answer, reading: Reading | None) -> Iterator[Update]:
        """The update of an answer, unless its frame is refused; a stopped client ends the run."""
        if answer.status == "stop":
            raise TrainingError(answer.reason)
        if answer.status == "keyframe":
            return self._refuse(answer, "asked for a keyframe twice")
        if reading is None:
            return self._drop(answer.client, answer.reason)
        self.records[answer.client] = answer.record
        self._add("server_decode", reading.seconds)
        if reading.update is None:
            return self._refuse(answer, reading.refused)
        if excess := self._excess(answer.client, reading.update.samples):
            return self._refuse(answer, excess)
        self.have[answer.client] = self.accepted[answer.client] = self.version
        self._note(answer, reading.update, reading.parts)
        yield reading.update

    def _excess(self, client: int, said: int) -> str:
        """Why a claim of samples is not believed; empty if it is."""
        if not (claims := self.simulation.claims) or said <= (most := claims.most(client, self.said)):
            return ""
        return f"update: says it is of {said} samples, at most {most} (server.max_samples)"

    def _asks(self, answer: Answer) -> dict[int, int | None]:
        """The client that asks for a keyframe, and what it has; none when its request is refused."""
        try:
            have = requested(answer.frame)
        except DecodeError as error:
            self._refuse(answer, str(error))
            return {}
        self._receive(answer, "request")
        return {answer.client: have}

    def _receive(self, answer: Answer, sort: str) -> None:
        self.traffic.received(len(answer.frame), sort)
        self.crossings.received(answer.client, len(answer.frame))

    def _refuse(self, answer: Answer, reason: str) -> None:
        """What crossed counts, be it of no use."""
        self._receive(answer, "refused")
        self._drop(answer.client, reason)

    def _drop(self, client: int, reason: str) -> None:
        self.dropped.append({"client": client, "reason": shown(reason)})

    def _note(self, answer: Answer, update: Update, parts: Mapping[str, int]) -> None:
        self.sort = self.sort or sort_of(answer.frame)
        self._receive(answer, self.sort)
        self.traffic.up_parts.update(parts)
        self.merged.append(answer.client)
        self.losses += _if_sound(answer.metrics.get("loss"), most=LARGEST_LOSS)
        self.errors += _if_sound(answer.metrics.get("nmse"), most=LARGEST_NMSE)
        self.missed += _if_sound(answer.metrics.get("missed"), most=1)
        for stage in TIMES:
            self._add(stage, sum(_if_sound(answer.metrics.get(stage), most=perf_counter() - self.sent)))
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
            train_loss=math.fsum(self.losses) / len(self.losses) if self.losses else None,
            up_bytes=sum(traffic.up),
            down_bytes=sum(traffic.down),
            evaluate_bytes=traffic.evaluate_bytes,
            up_bpp=traffic.bpp(traffic.up),
            up_bpp_marginal=traffic.marginal_bpp,
            down_bpp=traffic.bpp(traffic.down),
            total_bytes=total_before + crossed,
            clients=len(self.merged),
            error_feedback=self.method.error_feedback,
            dropped=self.dropped,
            seconds={stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            up_by_sort=dict(traffic.up_by_sort),
            down_by_sort=dict(traffic.down_by_sort),
            up_parts=dict(traffic.up_parts),
            tries=self.tries,
            skipped=self.skipped or None,
            nmse=math.fsum(self.errors) / len(self.errors) if self.errors else None,
            worst_nmse=max(self.errors, default=None),
            missed=round(sum(self.missed)) if self.missed else None,
        )


def _others(chosen: Sequence[int], clients: int, most: int, draw: np.random.Generator) -> list[int]:
    """Up to `most` of the clients that are not among those chosen."""
    size = min(most, clients - len(chosen))
    if not size:
        return []
    ranks = draw.choice(clients - len(chosen), size=size, replace=False)  # among the others
    return (ranks + np.searchsorted(np.sort(chosen) - np.arange(len(chosen)), ranks, side="right")).tolist()


def requested(frame: bytes) -> int | None:
    """What a client that asks for a keyframe is sent as having; DecodeError unless the frame is such a request."""
    return SPELT_OUT if frames.expect(frames.read(frame), kinds=(Kind.REQUEST,)).codec else None


def _if_sound(value: Any, most: float) -> list[float]:
    """A number that a client said, if it is one from 0 to `most`: it comes from outside, and is not worth an update."""
    return [float(value)] if isinstance(value, int | float) and 0 <= value <= most else []
