"""Federated training on one machine: rounds, cohorts, every byte encoded, sent, decoded and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from thinwire.errors import QuorumError, TrainingError
from thinwire.methods import Method
from thinwire.runtime.claims import Claims
from thinwire.runtime.client import ENVELOPE_BYTES, EVALUATE, NEVER, TRAIN, Answer
from thinwire.runtime.contents import sort_of
from thinwire.runtime.pool import Pool, Task
from thinwire.runtime.progress import Progress
from thinwire.runtime.reading import Reader
from thinwire.runtime.round import RoundWork
from thinwire.runtime.state import not_finite

STOP, REPEAT, SKIP = "stop", "repeat", "skip"  # what becomes of a round without quorum


@dataclass(frozen=True)
class Sending:
    """Bytes and sort of the message to each client, the clients' answers as they come, and what the encoding took."""

    sizes: dict[int, int]
    sorts: dict[int, str]
    answers: Iterator[Answer]
    encode_seconds: float


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
        reader: Reader | None = None,
        oversample: float = 1.0,
        min_replies: int = 1,
        without_quorum: str = STOP,
        tries: int = 1,
        claims: Claims | None = None,
    ) -> None:
        self.method, self.pool, self.clients, self.seed = method, pool, clients, seed
        self.evaluation_pool = evaluation_pool  # where `pool` only watches one that it must not watch evaluating
        self.reader = reader  # of the clients' frames; None: this process, one frame after the other
        self.oversample, self.min_replies = oversample, min_replies
        self.without_quorum, self.tries = without_quorum, tries if without_quorum == REPEAT else 1
        self.claims = claims  # what clients may say of their samples; None: anything
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
                if where := not_finite(server):
                    raise QuorumError(f"the updates together make {where} NaN or infinite")
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
