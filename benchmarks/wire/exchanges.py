"""How long SuperNodes take to receive and to send messages, by the clock at which their log says so.

Polls and training lie outside: a SuperNode (Flower 1.41) writes `Receiving` when its poll has found a message and
`Received successfully` when it has all of it, and `Sending` and `Sent successfully` likewise. The first message of a
run brings the app with it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

TICK_SECONDS = 0.005
ROUND = re.compile(r"\[RUN (\d+)(?:, ROUND (.*))?\]")
BEGINS = re.compile(r"(Receiving|Sending): (\S+) message")
ENDS = re.compile(r"(Received|Sent) successfully|Failed to (receive|send) message")


@dataclass(frozen=True)
class Exchange:
    """One message of a node; `up` is what the node sends. Times in seconds since the epoch."""

    node: str
    run: str
    round: str
    kind: str
    up: bool
    good: bool
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """From the moment that it is found or ready until all of it has crossed."""
        return self.end - self.start


@dataclass
class Reader:
    """The exchanges in one node's log, which is read line by line."""

    node: str
    found: list[Exchange] = field(default_factory=list)
    _round: tuple[str, str] = ("", "")
    _open: tuple[str, bool, float] | None = None

    def line(self, text: str, now: float) -> None:
        """Take the next line, written at `now`."""
        if about := ROUND.search(text):
            self._round = about[1], about[2] or ""
        elif begins := BEGINS.search(text):
            self._open = begins[2], begins[1] == "Sending", now
        elif (ends := ENDS.search(text)) and self._open is not None:
            kind, up, start = self._open
            self.found.append(Exchange(self.node, *self._round, kind, up, ends[1] is not None, start, now))
            self._open = None


class Exchanges:
    """Follows the logs, one for each node, while it is open; `found` has what has ended so far."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self._logs = logs
        self._readers = {node: Reader(node) for node in logs}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="exchanges")

    def __enter__(self) -> Self:
        self._places = {node: _size(log) for node, log in self._logs.items()}
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def found(self) -> list[Exchange]:
        """In the order of their ends."""
        return sorted((one for reader in self._readers.values() for one in reader.found), key=lambda one: one.end)

    def _follow(self) -> None:
        rest, places = dict.fromkeys(self._logs, b""), self._places
        while True:
            last = self._stop.wait(TICK_SECONDS)
            now = time.time()
            for node, log in self._logs.items():
                if _size(log) > places[node]:
                    new = _read(log, places[node])
                    places[node] += len(new)
                    *lines, rest[node] = (rest[node] + new).split(b"\n")
                    for text in lines:
                        self._readers[node].line(text.decode(errors="replace"), now)
            if last:
                return


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read(log: Path, place: int) -> bytes:
    with log.open("rb") as file:
        file.seek(place)
        return file.read()
