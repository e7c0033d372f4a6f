"""Reading the clients' frames: what comes of one, and where it is read.

Frames are read in this process, or where clients run in others of this machine, in those: the server then only adds.
The updates come in the same order with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from thinwire.errors import DecodeError
from thinwire.methods import Method, Update
from thinwire.methods.base import ServerState
from thinwire.runtime.contents import opened

if TYPE_CHECKING:
    from thinwire.runtime.client import Answer


@dataclass(frozen=True)
class Reading:
    """What came of a client's frame: the update and its bytes by part, or why it was refused; and the seconds."""

    update: Update | None
    parts: Mapping[str, int]
    seconds: float
    refused: str = ""


def read(method: Method, state: ServerState, client: int, frame: bytes) -> Reading:
    """Decode and check a frame."""
    start = perf_counter()
    try:
        update, parts = opened(partial(method.read, state, client, frame), len(frame))
    except DecodeError as error:
        return Reading(None, {}, perf_counter() - start, str(error))
    return Reading(update, parts, perf_counter() - start)


Readings = Iterator[tuple["Answer", Reading | None]]  # None for an answer without an update


class Reader(Protocol):
    """Reads the frames of a round."""

    def __call__(self, state: ServerState, answers: Iterator[Answer]) -> Readings:
        """Answers as they come, each with what came of its frame."""


@dataclass(frozen=True)
class Here:
    """Reads in this process, when an answer's turn has come."""

    method: Method

    def __call__(self, state: ServerState, answers: Iterator[Answer]) -> Readings:
        """Answers as they come, each with what came of its frame."""
        for answer in answers:
            yield answer, read(self.method, state, answer.client, answer.frame) if answer.status == "done" else None
