"""Child processes that are all found again: each carries a mark that whatever it starts inherits, and ends by it.

Flower's programs start others, some in sessions of their own. On Linux the mark is read from /proc; elsewhere a
process ends with its process group, and the rest by Flower's own watch over parents.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "THINWIRE_PROCESS"


def members(mark: str) -> list[int]:
    """The processes that carry `mark`, or one below it (`mark/...`); always none where there is no /proc."""
    wanted = re.compile(rb"(?:^|\0)" + re.escape(f"{MARK}={mark}".encode()) + rb"(?:/[^\0]*)?\0")
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted.search(entry.read_bytes()):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def end(mark: str, seconds: float = 10.0) -> None:
    """Kill whatever carries `mark`, and what it starts meanwhile."""
    give_up = time.monotonic() + seconds
    while (left := members(mark)) and time.monotonic() < give_up:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


class Process:
    """A program in a session of its own, its output in a log file."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], mark: str, log: Path) -> None:
        self.mark = mark
        self.log = log
        self._start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                env={**env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.poll()

    def text(self) -> str:
        """What this process and its children have written, without the colours."""
        raw = self.log.read_bytes()[self._start :].decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", raw)

    def tail(self, lines: int = 20) -> str:
        """The last lines of the text that are not empty."""
        return "\n".join([line for line in self.text().splitlines() if line.strip()][-lines:])

    def interrupt(self) -> None:
        """Ask it to leave, as Ctrl-C does."""
        if self.exit_code is None:
            self._child.send_signal(signal.SIGINT)

    def wait(self, seconds: float | None) -> bool:
        """Whether it has ended within so many seconds."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        if self.exit_code is None:
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        end(self.mark)


class Guard:
    """While it is open, the death of this process, however it comes, is the end of all processes with the mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-I", __file__, self.mark], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        end(self.mark)
        self._child.kill()
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()


def _watch(mark: str) -> None:
    sys.stdin.buffer.read()
    end(mark)


if __name__ == "__main__":
    _watch(sys.argv[1])
