"""Clients in processes of this machine; only bytes cross the pipes to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Self, cast

from thinwire.codecs.dense import CASTS
from thinwire.machine import cores, start_method
from thinwire.methods import Method
from thinwire.methods.base import ServerState
from thinwire.runtime import pipes
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import Answer, Clients
from thinwire.runtime.hiring import Hired, anew, dismiss, forked
from thinwire.runtime.pool import Inline, Pool, Task
from thinwire.runtime.reading import Reader, Reading, Readings, read
from thinwire.runtime.recipe import clients_of

AHEAD = 2  # tasks or frames that may wait, a worker: bounds the answers kept for their turn
AHEAD_BYTES = 2**28  # of answers that may wait for their frames to be read
Job = tuple[int, Callable[[], bytes]]  # its number, and what packs it when its turn comes


class Workers:
    """Clients spread over processes with one torch thread each, which also read frames for the server."""

    may_be_late: ClassVar[bool] = False

    def __init__(self, hired: Sequence[Hired], leave: Callable[[], object] = lambda: None) -> None:
        self.processes, self.pipes = [process for process, _ in hired], [pipe for _, pipe in hired]
        self.leave = leave  # done when all have ended
        self.idle, self.busy = list(self.pipes), dict[Connection, int]()  # pipe -> job under way
        self.frames, self.tasks, self.numbers = deque[Job](), deque[Job](), count()
        self.results: dict[int, bytes] = {}

    @classmethod
    def forked(cls, clients: Clients, number: int) -> Self:
        """Forks of this process."""
        return cls(forked(clients, number))

    @classmethod
    def anew(cls, assembly: Assembly, number: int, method: str) -> Self:
        """Processes that inherit nothing, started by `spawn` or `forkserver`."""
        folder = TemporaryDirectory(prefix="thinwire-", ignore_cleanup_errors=True)
        try:
            return cls(anew(assembly, number, method, Path(folder.name)), folder.cleanup)
        finally:
            folder.cleanup()  # what is mapped stays readable; on Windows it stays as a file too, until it is not mapped

    @property
    def ahead(self) -> int:
        """Jobs of a kind that may be under way or wait for their turn."""
        return AHEAD * len(self.pipes)

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round."""
        for pipe in self.pipes:
            pipes.send(pipe, pipes.pack({"begin": True}, sync, *broadcasts))

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks."""
        waiting = deque[int]()
        for task in tasks:
            waiting.append(self._submit(self.tasks, partial(_pack_task, task)))
            if len(waiting) > self.ahead:
                yield pipes.unpack_answer(self._result(waiting.popleft()))
        while waiting:
            yield pipes.unpack_answer(self._result(waiting.popleft()))

    def submit_reading(self, client: int, frame: bytes) -> int:
        """Have a process read a client's frame, before any task that waits. -> number of the job"""
        return self._submit(self.frames, lambda: pipes.pack({"client": client}, frame))

    def reading(self, job: int) -> Reading | None:
        """What came of a frame; None when the run has to read it itself."""
        return pipes.unpack_reading(self._result(job))

    def _submit(self, queue: deque[Job], pack: Callable[[], bytes]) -> int:
        job = next(self.numbers)
        queue.append((job, pack))
        self._hand_out()
        return job

    def _hand_out(self) -> None:
        while self.idle and (queue := self.frames or self.tasks):
            pipe, (job, pack) = self.idle.pop(), queue.popleft()
            pipes.send(pipe, pack())
            self.busy[pipe] = job

    def _result(self, job: int) -> bytes:
        while job not in self.results:
            for ready in cast(list[Connection], wait(list(self.busy))):
                self.results[self.busy.pop(ready)] = pipes.receive(ready)
                self.idle.append(ready)
            self._hand_out()
        return self.results.pop(job)

    def close(self) -> None:
        """End the workers, idle or not."""
        dismiss(list(zip(self.processes, self.pipes, strict=True)))
        self.leave()


@dataclass(frozen=True)
class Elsewhere:
    """Reads in the processes of a pool."""

    method: Method
    pool: Workers

    def __call__(self, state: ServerState, answers: Iterator[Answer]) -> Readings:
        """Answers in their order, each with what came of its frame; those whose frames are under way wait."""
        waiting, readable = deque[tuple[Answer, int | None]](), True
        for answer in answers:
            goes = readable and answer.status == "done"
            waiting.append((answer, self.pool.submit_reading(answer.client, answer.frame) if goes else None))
            while waiting and (waiting[0][1] is None or self._many([answer for answer, _ in waiting])):
                answer, job = waiting.popleft()
                reading = self._there(job)
                readable &= job is None or reading is not None  # what one process cannot read, none can
                yield answer, reading or self._here(state, answer)
        for answer, job in waiting:
            yield answer, self._there(job) or self._here(state, answer)

    def _many(self, answers: Sequence[Answer]) -> bool:
        """Do more wait than should?"""
        return len(answers) > self.pool.ahead or (len(answers) > 1 and sum(map(self._bytes, answers)) > AHEAD_BYTES)

    def _bytes(self, answer: Answer) -> int:
        record = answer.record
        return len(answer.frame) + len(record.state) + len(record.pending) + 4 * self.method.parameters

    def _there(self, job: int | None) -> Reading | None:
        return None if job is None else self.pool.reading(job)

    def _here(self, state: ServerState, answer: Answer) -> Reading | None:
        return read(self.method, state, answer.client, answer.frame) if answer.status == "done" else None


def open_reader(method: Method, pool: Pool) -> Reader | None:
    """Coded frames are read where the clients run, if those are processes of this machine; else by the run itself."""
    coded = method.mirror and not isinstance(method.uplink, CASTS)
    return Elsewhere(method, pool) if coded and isinstance(pool, Workers) else None


def open_pool(assembly: Assembly, workers: int) -> Pool:
    """The clients of a run in this process for one worker, else in that many others."""
    if workers == 1:
        return Inline(clients_of(assembly))
    method = start_method()
    if method == "fork":
        return Workers.forked(clients_of(assembly), workers)
    return Workers.anew(assembly, workers, method)


def default_workers(device: str, cohort: int) -> int:
    """As many processes as cores, at most one a client of the round; one on a GPU."""
    return 1 if device != "cpu" else max(1, min(cores(), cohort))


def _pack_task(task: Task) -> bytes:
    record = task.fetch()
    head = {"client": task.client, "broadcast": task.broadcast, "accepted": task.accepted, "purpose": task.purpose}
    return pipes.pack(head | pipes.numbers(record), record.state, record.pending)
