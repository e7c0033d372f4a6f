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
from typing import ClassVar

import torch

from thinwire.methods import Method
from thinwire.methods.base import ServerState
from thinwire.runtime import pipes
from thinwire.runtime.client import Answer, Clients, Record
from thinwire.runtime.pool import Inline, Pool, Task
from thinwire.runtime.reading import Reader, Reading, Readings, read

AHEAD = 2  # tasks or frames that may wait, a worker: bounds the answers kept for their turn
AHEAD_BYTES = 2**28  # of updates that may wait, as arrays


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
        self.jobs, self.numbers = deque[tuple[int, Callable[[], bytes]]](), count()
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
            waiting.append(self._submit(partial(_pack_task, task)))
            if len(waiting) > self.ahead:
                yield pipes.unpack_answer(self._result(waiting.popleft()))
        while waiting:
            yield pipes.unpack_answer(self._result(waiting.popleft()))

    def submit_reading(self, client: int, frame: bytes) -> int:
        """Have a process read a client's frame, before anything else that waits. -> number of the job"""
        return self._submit(lambda: pipes.pack({"client": client}, frame), first=True)

    def reading(self, job: int) -> Reading | None:
        """What came of a frame; None when the process could not read it."""
        return pipes.unpack_reading(self._result(job))

    def _submit(self, pack: Callable[[], bytes], first: bool = False) -> int:
        """Queue a job, which is packed when its turn comes."""
        job = next(self.numbers)
        (self.jobs.appendleft if first else self.jobs.append)((job, pack))
        self._hand_out()
        return job

    def _hand_out(self) -> None:
        while self.idle and self.jobs:
            pipe, (job, pack) = self.idle.pop(), self.jobs.popleft()
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
    """Reads in the processes of a pool, those frames whose reading takes longer than the way there and back."""

    method: Method
    pool: Forked

    def __call__(self, state: ServerState, answers: Iterator[Answer]) -> Readings:
        """Answers in their order, each with what came of its frame; some are awaited ahead of their turn."""
        waiting = deque[tuple[Answer, int | None]]()
        for answer in answers:
            waiting.append((answer, self._submit(answer)))
            if len(waiting) > self.ahead:
                yield self._read(state, *waiting.popleft())
        while waiting:
            yield self._read(state, *waiting.popleft())

    @property
    def ahead(self) -> int:
        """Frames that may wait for their turn: few of a large model, whose updates may be as large as it is."""
        return max(1, min(self.pool.ahead, AHEAD_BYTES // (4 * self.method.parameters)))

    def _submit(self, answer: Answer) -> int | None:
        if answer.status != "done" or not self.worthwhile(answer.frame):
            return None
        return self.pool.submit_reading(answer.client, answer.frame)

    def worthwhile(self, frame: bytes) -> bool:
        """Is a frame coded? One about as long as what it holds is copied rather than decoded."""
        return 2 * len(frame) < 4 * self.method.parameters

    def _read(self, state: ServerState, answer: Answer, job: int | None) -> tuple[Answer, Reading | None]:
        reading = None if job is None else self.pool.reading(job)
        if reading is None and answer.status == "done":
            reading = read(self.method, state, answer.client, answer.frame)
        return answer, reading


def open_reader(method: Method, pool: Pool) -> Reader | None:
    """Frames are read where the clients run, if those are processes of this machine; else by the run itself."""
    return Elsewhere(method, pool) if isinstance(pool, Forked) else None


def open_pool(clients: Clients, workers: int) -> Pool:
    """Clients in this process for one worker, else in that many forked ones."""
    return Inline(clients) if workers == 1 else Forked(clients, workers)


def default_workers(device: str, cohort: int) -> int:
    """As many processes as cores, at most one a client of the round; one on a GPU."""
    return 1 if device != "cpu" else max(1, min(len(os.sched_getaffinity(0)), cohort))


def _serve(clients: Clients, pipe: Connection, inherited: list[Connection]) -> None:
    """A worker's life: rounds and tasks until the pipe closes, be it in the middle of an answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in inherited:
        other.close()
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        _work(clients, pipe)


def _work(clients: Clients, pipe: Connection) -> None:
    broadcasts: list[bytes] = []
    while True:
        head, *parts = pipes.unpack(pipe.recv_bytes())
        if "begin" in head:
            clients.sync(parts[0])
            broadcasts = parts[1:]
        elif "purpose" in head:
            record = Record(head["have"], parts[0], parts[1], head["pending"])
            broadcast = broadcasts[head["broadcast"]]
            answer = clients.answer(head["client"], record, head["accepted"], broadcast, head["purpose"])
            pipe.send_bytes(pipes.pack_answer(answer))
        else:
            pipe.send_bytes(pipes.pack_reading(clients.read(head["client"], parts[0])))


def _pack_task(task: Task) -> bytes:
    record = task.fetch()
    head = {"client": task.client, "broadcast": task.broadcast, "accepted": task.accepted, "purpose": task.purpose}
    return pipes.pack(head | pipes.numbers(record), record.state, record.pending)
