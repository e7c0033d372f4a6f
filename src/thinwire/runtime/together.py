"""A pool whose clients train side by side in this process, one call a step for all of them: what a GPU is made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from thinwire.errors import ThinwireError
from thinwire.runtime.client import TRAIN, Answer, Opened
from thinwire.runtime.pool import Inline, Task

AT_ONCE = 128  # clients whose weights, gradients and samples are in memory at the same time


class Together(Inline):
    """Clients with equally many samples train together; whoever is alone, or cannot, takes the way of `Inline`."""

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks."""
        for start in range(0, len(tasks), AT_ONCE):
            block = tasks[start : start + AT_ONCE]
            trained = self._train([task for task in block if task.purpose == TRAIN])
            for task in block:
                yield trained[task.client] if task.client in trained else self.answer(task)

    def _train(self, tasks: Sequence[Task]) -> dict[int, Answer]:
        """The answers, by client, of those that train together. One that fails takes its group to the other way."""
        groups: dict[int, list[Opened]] = {}
        for task in tasks:
            with suppress(Exception):  # the other way tells what is wrong with this client
                opened = self.clients.open(task.client, task.fetch(), task.accepted, self.broadcasts[task.broadcast])
                groups.setdefault(len(opened.data.y), []).append(opened)
        answers: dict[int, Answer] = {}
        for group in groups.values():
            if len(group) > 1:
                with suppress(ThinwireError, RuntimeError):  # RuntimeError: torch's, out of memory among them
                    answers |= {answer.client: answer for answer in self.clients.train_together(group)}
        return answers
