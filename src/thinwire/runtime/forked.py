"""Clients in forked processes, which inherit method and data; only bytes cross the pipes."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar

import torch

from thinwire.codecs.dense import CASTS
from thinwire.methods import Method
from thinwire.methods.base import ServerState
from thinwire.runtime import pipes
from thinwire.runtime.client import Answer, Clients, Record
from thinwire.runtime.pool import Inline, Pool, Task
from thinwire.runtime.reading import Reader, Reading, Readings, read

AHEAD = 2  # tasks or frames that may wait, a worker: bounds the answers kept for their turn
AHEAD_BYTES = 2**28  # of answers that may wait for their frames to be read
Job = tuple[int, Callable[[], bytes]]  # its number, and what packs it when its turn comes


class Forked:
    """Clients spread over processes with one torch thread each, which also read frames for the server."""

    may_be_late: ClassVar[bool] = False

    def __init__(self, clients: Clients, workers: int) -> None:
        context = get_context("fork")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(clients, theirs, [*self.pipes, ours]), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.idle, self.busy = list(self.pipes), dict[Connection, int]()  # pipe -> job under way
        self.frames, self.tasks, self.numbers = deque[Job](), deque[Job](), count()
        self.results: dict[int, bytes] = {}

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
            for ready in wait(list(self.busy)):
                assert isinstance(ready, Connection)
                self.results[self.busy.pop(ready)] = pipes.receive(ready)
                self.idle.append(ready)
            self._hand_out()
        return self.results.pop(job)

    def close(self) -> None:
        """End the workers, idle or not."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.terminate()
            process.join()


@dataclass(frozen=True)
class Elsewhere:
    """Reads in the processes of a pool."""

    method: Method
    pool: Forked

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
    return Elsewhere(method, pool) if coded and isinstance(pool, Forked) else None


def open_pool(clients: Clients, workers: int) -> Pool:
    """Clients in this process for one worker, else in that many forked ones."""
    return Inline(clients) if workers == 1 else Forked(clients, workers)


def default_workers(device: str, cohort: int) -> int:
    """As many processes as cores, at most one a client of the round; one on a GPU."""
    return 1 if device != "cpu" else max(1, min(len(os.sched_getaffinity(0)), cohort))


def _serve(clients: Clients, pipe: Connection, inherited: list[Connection]) -> None:
    """A worker's life: rounds, tasks and frames until the pipe closes, be it in the middle of an answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in inherited:
        other.close()
    torch.set_num_threads(1)
    broadcasts: list[bytes] = []
    while True:
        try:
            head, *parts = pipes.unpack(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        if "begin" in head:
            clients.sync(parts[0])
            broadcasts = parts[1:]
            continue
        work = _task if "purpose" in head else _frame
        reply = work(clients, head, parts, broadcasts)
        with suppress(OSError):
            pipe.send_bytes(reply)


def _task(clients: Clients, head: dict[str, Any], parts: list[bytes], broadcasts: list[bytes]) -> bytes:
    record = Record(head["have"], parts[0], parts[1], head["pending"])
    broadcast = broadcasts[head["broadcast"]]
    return pipes.pack_answer(clients.answer(head["client"], record, head["accepted"], broadcast, head["purpose"]))


def _frame(clients: Clients, head: dict[str, Any], parts: list[bytes], broadcasts: list[bytes]) -> bytes:
    return pipes.pack_reading(clients.read(head["client"], parts[0]))


def _pack_task(task: Task) -> bytes:
    record = task.fetch()
    head = {"client": task.client, "broadcast": task.broadcast, "accepted": task.accepted, "purpose": task.purpose}
    return pipes.pack(head | pipes.numbers(record), record.state, record.pending)
