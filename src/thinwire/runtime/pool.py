"""Where clients run: in this process or in others. Answers come in the order of the tasks, whatever the number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from thinwire.runtime.client import TRAIN, Answer, Clients, Record


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
