"""Runs side by side, each in a process of its own; only JSON crosses the pipes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from subprocess import DEVNULL, Popen
from typing import Any, cast

from thinwire.compare.handing import End, inheriting
from thinwire.compare.suite import Planned
from thinwire.runtime.interruption import heeded
from thinwire.runtime.ledger import Round

OnRunRound = Callable[[str, Round, int], None]  # the run's label, the round just committed, rounds in all
STDERR = 2
KILLED = -9  # the exit code of a process that the system killed, on POSIX
HEED_SECONDS = 0.2  # after which Ctrl-C is heeded


def side_by_side(runs: Sequence[Planned], jobs: int, on_round: OnRunRound) -> dict[str, str]:
    """-> why runs failed, by label. Whatever ends this call ends the processes; Ctrl-C lets them end their round."""
    waiting, children, failed = list(runs), dict[End, Child](), dict[str, str]()
    try:
        with heeded() as interruption:
            while children or (waiting and not interruption.asked):
                while waiting and len(children) < jobs and not interruption.asked:
                    child = Child(waiting.pop(0))
                    children[child.pipe] = child
                for pipe in wait(list(children), HEED_SECONDS):
                    _listen(children, cast(End, pipe), failed, on_round)
                for child in children.values() if interruption.asked else ():
                    child.end()
    finally:
        for child in children.values():
            child.stop()
    return failed


def _listen(children: dict[End, Child], pipe: End, failed: dict[str, str], show: OnRunRound) -> None:
    """Take one message of a child: a round, why its run failed, or that it has ended."""
    child = children[pipe]
    message, label = child.receive(), child.run.label
    if "round" in message:
        show(label, Round(**message["round"]), child.run.experiment.rounds)
    elif "failed" in message:
        failed[label] = message["failed"]
    else:
        del children[pipe]
        if message["ended"]:
            guess = " (out of memory?)" if message["ended"] == KILLED else ""
            failed[label] = f"its process ended with exit code {message['ended']}{guess}"


class Child:
    """A process that plays one run with one worker, and ends by itself when this one is gone.

    Ctrl-C is for the process that started it, which then stops it.
    """

    def __init__(self, run: Planned) -> None:
        self.run, self.asked = run, False
        self.pipe, theirs = Pipe()
        number = theirs.fileno()
        words = [sys.executable, "-P", "-m", "thinwire.compare.child", str(number), str(run.folder)]
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self.process = Popen(
            words, env={**os.environ, "PYTHONPATH": path}, stdin=DEVNULL, stdout=STDERR, **inheriting(number)
        )
        theirs.close()

    def receive(self) -> dict[str, Any]:
        """The next message, or the exit code."""
        try:
            return dict(json.loads(self.pipe.recv_bytes()))
        except (EOFError, OSError):
            self.pipe.close()
            return {"ended": self.process.wait()}

    def end(self) -> None:
        """Ask the process to end after its round."""
        if not self.asked:
            self.asked = True
            with suppress(OSError):
                self.pipe.send_bytes(b"end")

    def stop(self) -> None:
        """End the process, whatever it is doing: what it has committed stays."""
        self.process.terminate()
        self.process.wait()
        self.pipe.close()
