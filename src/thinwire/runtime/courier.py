"""A worker process as the run sees it: a thread carries the messages, so that the run itself never waits on a pipe.

A process that hangs leaves a pipe full, or an answer half sent: whoever writes or reads there waits for ever. Here that
is the thread of this one process, and ends with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from time import monotonic

JOIN_SECONDS = 3.0  # for a thread whose process has ended; longer only where another process holds the pipe too


@dataclass(frozen=True)
class Job:
    """One message to a worker that it answers: its number, what the worker has to do, and what packs the message."""

    number: int
    to_do: str  # in words, as they follow "it took 5 s": to train client 3
    pack: Callable[[], bytes]  # called when the job's turn comes


@dataclass(frozen=True)
class Reply:
    """What came of a job: the worker's answer, or the error that the pipe gave; and how long it took."""

    courier: Courier
    answer: bytes | Exception
    seconds: float


class Courier:
    """Brings one worker process its jobs, one at a time, and puts the replies where all couriers put theirs."""

    def __init__(self, process: BaseProcess, pipe: Connection, replies: SimpleQueue[Reply]) -> None:
        self.process, self.pipe, self.replies = process, pipe, replies
        self.job: Job | None = None  # under way
        self.since, self.named = 0.0, False  # when that job was given, and whether the user knows that it takes long
        self.messages = SimpleQueue[bytes | None]()
        self.thread = Thread(target=self._carry, name=f"courier of {process.name}", daemon=True)
        self.thread.start()

    @property
    def seconds(self) -> float:
        """How long the job under way has taken so far."""
        return monotonic() - self.since

    def give(self, job: Job) -> None:
        """Hand a job to an idle worker. Returns at once, however large the message is."""
        message = job.pack()
        self.job, self.since, self.named = job, monotonic(), False
        self.messages.put(message)

    def end(self) -> None:
        """End the thread of a process that has ended, and close the pipe."""
        self.messages.put(None)
        self.thread.join(JOIN_SECONDS)
        if not self.thread.is_alive():  # else its number could be another file's before the thread sees it
            self.pipe.close()

    def _carry(self) -> None:
        while self._exchange(self.messages.get()):
            pass

    def _exchange(self, message: bytes | None) -> bool:
        """Bring one message and its answer. -> will there be more?"""
        if message is None:
            return False
        began = monotonic()
        try:
            self.pipe.send_bytes(message)
            answer: bytes | Exception = self.pipe.recv_bytes()
        except Exception as error:  # raised where the run waits; here nobody would hear of it
            answer = error
        self.replies.put(Reply(self, answer, monotonic() - began))
        return isinstance(answer, bytes)
