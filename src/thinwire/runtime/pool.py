"""Where clients run: in this process or in forked ones. Answers come in the order of the tasks, whatever the number.

Forked workers inherit method and data; only bytes cross the pipes (JSON and frames, no pickle).
"""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar, Protocol

import torch

from thinwire.errors import ThinwireError
from thinwire.runtime.client import TRAIN, Answer, Clients, Record

AHEAD = 2  # tasks that may wait for a worker, a worker: bounds the answers kept for their turn


@dataclass(frozen=True)
class Task:
    """One client's part of a round: which of the round's broadcasts it gets, what for, and what the client keeps.

    The record is fetched when its turn comes: those of a whole cohort need not fit the memory. try_number: of the
    cohort that the client is asked in, counted from 1 over the run.
    """

    client: int
    broadcast: int
    accepted: int
    fetch: Callable[[], Record]
    purpose: str = TRAIN
    try_number: int = 1


class Pool(Protocol):
    """Runs the clients of a round."""

    may_be_late: ClassVar[bool]  # is there a chance that a client answers too late?

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round: bring every process to the current version, hand out the round's broadcasts."""

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks; where clients may be late, the first `enough` to arrive are waited for."""

    def close(self) -> None:
        """End the workers."""


class Inline:
    """All clients in this process, one after the other."""

    may_be_late: ClassVar[bool] = False

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.broadcasts: Sequence[bytes] = ()

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round."""
        self.clients.sync(sync)
        self.broadcasts = broadcasts

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks."""
        for task in tasks:
            yield self.answer(task)

    def answer(self, task: Task) -> Answer:
        """The answer of one client."""
        broadcast = self.broadcasts[task.broadcast]
        return self.clients.answer(task.client, task.fetch(), task.accepted, broadcast, task.purpose)

    def close(self) -> None:
        """Nothing to end."""


class Forked:
    """Clients spread over processes with one torch thread each."""

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

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round."""
        for pipe in self.pipes:
            _send(pipe, _pack({"begin": True}, sync, *broadcasts))

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks; at most AHEAD a worker wait for their turn."""
        waiting: dict[int, Answer] = {}
        idle, busy, sent = list(self.pipes), dict[Connection, int](), 0
        for turn in range(len(tasks)):
            while turn not in waiting:
                while idle and sent < min(len(tasks), turn + AHEAD * len(self.pipes) + 1):
                    pipe = idle.pop()
                    _send(pipe, _pack_task(tasks[sent]))
                    busy[pipe] = sent
                    sent += 1
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    waiting[busy.pop(ready)] = _unpack_answer(_receive(ready))
                    idle.append(ready)
            yield waiting.pop(turn)

    def close(self) -> None:
        """End the workers, idle or not."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.terminate()
            process.join()


def open_pool(clients: Clients, workers: int) -> Pool:
    """Clients in this process for one worker, else in that many forked ones."""
    return Inline(clients) if workers == 1 else Forked(clients, workers)


def default_workers(device: str, cohort: int) -> int:
    """As many processes as cores, at most one a client of the round; one on a GPU."""
    return 1 if device != "cpu" else max(1, min(len(os.sched_getaffinity(0)), cohort))


WORKER_ENDED = "a worker process ended (out of memory?): use fewer --workers, then resume"


def _send(pipe: Connection, data: bytes) -> None:
    try:
        pipe.send_bytes(data)
    except OSError:
        raise ThinwireError(WORKER_ENDED) from None


def _receive(pipe: Connection) -> bytes:
    try:
        return pipe.recv_bytes()
    except (EOFError, OSError):
        raise ThinwireError(WORKER_ENDED) from None


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
        head, *parts = _unpack(pipe.recv_bytes())
        if "begin" in head:
            clients.sync(parts[0])
            broadcasts = parts[1:]
        else:
            record = Record(head["have"], parts[0], parts[1], head["pending"])
            broadcast = broadcasts[head["broadcast"]]
            answer = clients.answer(head["client"], record, head["accepted"], broadcast, head["purpose"])
            pipe.send_bytes(_pack_answer(answer))


def _pack(head: dict[str, Any], *parts: bytes) -> bytes:
    every = [json.dumps(head).encode(), *parts]
    return struct.pack(f"<I{len(every)}Q", len(every), *map(len, every)) + b"".join(every)


def _unpack(data: bytes) -> list[Any]:
    (count,) = struct.unpack_from("<I", data)
    start, parts = 4 + 8 * count, []
    for length in struct.unpack_from(f"<{count}Q", data, 4):
        parts.append(data[start : start + length])
        start += length
    return [json.loads(parts[0]), *parts[1:]]


def _numbers(record: Record) -> dict[str, Any]:
    return {"have": record.have, "pending": record.pending_version}


def _pack_task(task: Task) -> bytes:
    record = task.fetch()
    head = {"client": task.client, "broadcast": task.broadcast, "accepted": task.accepted, "purpose": task.purpose}
    return _pack(head | _numbers(record), record.state, record.pending)


def _pack_answer(answer: Answer) -> bytes:
    record = answer.record
    head = {"client": answer.client, "status": answer.status, "reason": answer.reason, "metrics": answer.metrics}
    head |= _numbers(record)
    return _pack(head, answer.frame, record.state, record.pending)


def _unpack_answer(data: bytes) -> Answer:
    head, frame, state, pending = _unpack(data)
    record = Record(head["have"], state, pending, head["pending"])
    return Answer(head["client"], head["status"], frame, record, head["reason"], head["metrics"])
