"""Clients in processes of this machine; only bytes cross the pipes to them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import ClassVar, Self

from thinwire.codecs.dense import CASTS
from thinwire.errors import ThinwireError
from thinwire.machine import cores, start_method
from thinwire.methods import Method
from thinwire.methods.base import ServerState
from thinwire.runtime import pipes
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import EVALUATE, TRAIN, Answer, Clients
from thinwire.runtime.courier import Courier, Job, Reply
from thinwire.runtime.hiring import Hired, anew, end, forked
from thinwire.runtime.pool import Inline, Pool, Task
from thinwire.runtime.reading import Reader, Reading, Readings, read
from thinwire.runtime.recipe import clients_of

AHEAD = 2  # tasks or frames that may wait, a worker: bounds the answers kept for their turn
AHEAD_BYTES = 2**28  # of answers that may wait for their frames to be read
NAMED_SECONDS, NAMED_TIMES = 300.0, 10.0  # a job that takes longer than both, the second in longest jobs, is named
LOOK_SECONDS = 0.5  # between two looks at how long the jobs under way have taken
TO_DO = {TRAIN: "to train client {}", EVALUATE: "to evaluate client {}"}


class NoneLeftError(ThinwireError):
    """Every worker process was given up."""


class Workers:
    """Clients spread over processes with one torch thread each, which also read frames for the server.

    timeout: seconds after which a process that is not done with a job is killed; None: never. What it was to answer is
    late, and the others do the rest of the run's work. Whether or not there is a timeout, a job that takes long is
    named on stderr.
    """

    may_be_late: ClassVar[bool] = False

    def __init__(
        self, hired: Sequence[Hired], leave: Callable[[], object] = lambda: None, timeout: float | None = None
    ) -> None:
        self.processes = [process for process, _ in hired]
        self.leave, self.timeout = leave, timeout  # `leave` is called when all have ended
        self.replies = SimpleQueue[Reply]()
        self.hired = [Courier(process, pipe, self.replies) for process, pipe in hired]
        self.couriers = list(self.hired)  # without those whose process was given up
        self.frames, self.tasks, self.numbers = deque[Job](), deque[Job](), count()
        self.answered: dict[int, bytes | None] = {}  # None: too late
        self.longest = 0.0  # seconds that a job has taken

    @classmethod
    def forked(cls, clients: Clients, number: int, timeout: float | None = None) -> Self:
        """Forks of this process."""
        return cls(forked(clients, number), timeout=timeout)

    @classmethod
    def anew(cls, assembly: Assembly, number: int, method: str) -> Self:
        """Processes that inherit nothing, started by `spawn` or `forkserver`."""
        folder = TemporaryDirectory(prefix="thinwire-", ignore_cleanup_errors=True)
        timeout = assembly.experiment.cohort.worker_timeout
        try:
            return cls(anew(assembly, number, method, Path(folder.name)), folder.cleanup, timeout)
        finally:
            folder.cleanup()  # what is mapped stays readable; on Windows it stays as a file too, until it is not mapped

    @property
    def ahead(self) -> int:
        """Jobs of a kind that may be under way or wait for their turn."""
        return AHEAD * len(self.couriers)

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round, as soon as no worker is busy with one that was broken off."""
        self.frames.clear()
        self.tasks.clear()
        while any(courier.job for courier in self.couriers):
            self._listen()
        self.answered.clear()
        self._check_any_left()
        message = pipes.pack({"begin": True}, sync, *broadcasts)
        for courier in self.couriers:
            courier.give(Job(next(self.numbers), "to take up the model of the round", lambda: message))

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks; a client whose process was given up has failed."""
        waiting = deque[tuple[int, int]]()  # jobs and their clients
        for task in tasks:
            to_do = TO_DO[task.purpose].format(task.client)
            waiting.append((self._submit(self.tasks, to_do, partial(_pack_task, task)), task.client))
            if len(waiting) > self.ahead:
                yield self._answer(*waiting.popleft())
        while waiting:
            yield self._answer(*waiting.popleft())

    def submit_reading(self, client: int, frame: bytes) -> int:
        """Have a process read a client's frame, before any task that waits. -> number of the job"""
        to_do = f"to read the frame of client {client}"
        return self._submit(self.frames, to_do, lambda: pipes.pack({"client": client}, frame))

    def reading(self, job: int) -> Reading | None:
        """What came of a frame; None when the run has to read it itself."""
        try:
            found = self._result(job)
        except NoneLeftError:
            return None
        return None if found is None else pipes.unpack_reading(found)

    def close(self) -> None:
        """End the workers, idle, busy or hanging."""
        end(self.processes)
        for courier in self.hired:
            courier.end()
        self.leave()

    def _answer(self, job: int, client: int) -> Answer:
        found = self._result(job)
        if found is None:
            return Answer(client, "failed", reason=f"late: no answer in {self.timeout:g} s (cohort.worker_timeout)")
        return pipes.unpack_answer(found)

    def _submit(self, queue: deque[Job], to_do: str, pack: Callable[[], bytes]) -> int:
        job = Job(next(self.numbers), to_do, pack)
        queue.append(job)
        self._hand_out()
        return job.number

    def _hand_out(self) -> None:
        for courier in self.couriers:
            if courier.job is None and (queue := self.frames or self.tasks):
                courier.give(queue.popleft())

    def _result(self, job: int) -> bytes | None:
        """The answer to a job; None when it is late. NoneLeftError when there is no process that could do it."""
        while job not in self.answered:
            self._check_any_left()
            self._listen()
            self._hand_out()
        return self.answered.pop(job)

    def _check_any_left(self) -> None:
        if not self.couriers:
            what = f"all worker processes took longer than cohort.worker_timeout, {self.timeout:g} s, and were killed"
            raise NoneLeftError(f"{what}: raise it or remove it in config.toml, then resume")

    def _listen(self) -> None:
        """Take the next reply, or find after a while that there is none. ThinwireError when a process has ended."""
        with suppress(Empty):
            self._take(self.replies.get(timeout=LOOK_SECONDS))
        if self.replies.empty():  # a job whose answer is here has not taken too long
            for courier in list(self.couriers):
                if job := courier.job:
                    self._look_at(courier, job)

    def _take(self, reply: Reply) -> None:
        courier = reply.courier
        if courier not in self.couriers or courier.job is None:  # given up before
            return
        if isinstance(reply.answer, Exception):
            raise pipes.ended(reply.answer)
        self.answered[courier.job.number], courier.job = reply.answer, None
        self.longest = max(self.longest, reply.seconds)

    def _look_at(self, courier: Courier, job: Job) -> None:
        """Name a job that takes long; give up the process of one that takes too long."""
        if self.timeout is not None and courier.seconds > self.timeout:
            self._give_up(courier, job)
        elif not courier.named and courier.seconds > max(NAMED_SECONDS, NAMED_TIMES * self.longest):
            courier.named = True
            until = f"it is killed after {self.timeout:g} s" if self.timeout else "cohort.worker_timeout would end it"
            _say(courier, f"has taken {courier.seconds:.0f} s {job.to_do} and is not done; {until}")

    def _give_up(self, courier: Courier, job: Job) -> None:
        courier.process.kill()  # a process that is stopped by SIGSTOP ends by nothing else
        self.couriers.remove(courier)
        self.answered[job.number] = None
        left = f"{len(self.couriers)} of {len(self.hired)} processes are left"
        _say(courier, f"took more than {self.timeout:g} s {job.to_do} and was killed; {left}")


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
    timeout = assembly.experiment.cohort.worker_timeout
    if workers == 1 and timeout is None:
        return Inline(clients_of(assembly))
    method = start_method()
    if method == "fork":
        return Workers.forked(clients_of(assembly), workers, timeout)
    return Workers.anew(assembly, workers, method)


def default_workers(device: str, cohort: int) -> int:
    """As many processes as cores, at most one a client of the round; one on a GPU."""
    return 1 if device != "cpu" else max(1, min(cores(), cohort))


def _pack_task(task: Task) -> bytes:
    record = task.fetch()
    head = {"client": task.client, "broadcast": task.broadcast, "accepted": task.accepted, "purpose": task.purpose}
    return pipes.pack(head | pipes.numbers(record), record.state, record.pending)


def _say(courier: Courier, what: str) -> None:
    print(f"worker process {courier.process.pid} {what}", file=sys.stderr)
