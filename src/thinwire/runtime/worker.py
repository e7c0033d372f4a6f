"""The life of a worker process: rounds, tasks and frames until the pipe closes. Only bytes cross it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from thinwire.errors import line
from thinwire.purity import restored
from thinwire.runtime import pipes, recipe
from thinwire.runtime.client import Answer, Clients, Record


def inherit(clients: Clients, pipe: Connection, others: Sequence[Connection]) -> None:
    """Serve as a fork of the run's own process; `others` are ends of pipes that it inherited too."""
    for other in others:
        other.close()
    _serve(clients, pipe)


def arrive(pipe: Connection) -> None:
    """Serve as a process that inherited nothing: the first message is the recipe, the first answer what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (head,) = pipes.unpack(pipe.recv_bytes())
    except (EOFError, OSError):
        return
    try:
        clients, failed = recipe.clients_of(recipe.read(head)), ""
    except Exception as error:  # of a user's own function, among others
        clients, failed = None, line(error)
    with suppress(OSError):
        pipe.send_bytes(pipes.pack({"failed": failed}))
    if clients:
        _serve(clients, pipe)


def _serve(clients: Clients, pipe: Connection) -> None:
    """Rounds, tasks and frames, each with a reply, until the pipe closes, even in the middle of an answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with restored():
        _answer_all(clients, pipe)


def _answer_all(clients: Clients, pipe: Connection) -> None:
    broadcasts, failed = list[bytes](), ""
    while True:
        try:
            head, *parts = pipes.unpack(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        if "begin" in head:
            failed, broadcasts = _begin(clients, parts[0]), parts[1:]
            reply = b""
        elif failed and "purpose" in head:
            reply = pipes.pack_answer(Answer(head["client"], "stop", reason=failed))
        else:
            work = _task if "purpose" in head else _frame
            reply = work(clients, head, parts, broadcasts)
        with suppress(OSError):
            pipe.send_bytes(reply)


def _begin(clients: Clients, sync: bytes) -> str:
    """Bring the process to the current version. -> why it cannot be; its clients' answers end the run with it."""
    try:
        clients.sync(sync)
    except Exception as error:  # of a model of somebody's own, among others
        return f"a worker process cannot take up the model of the round ({line(error)})"
    return ""


def _task(clients: Clients, head: dict[str, Any], parts: list[bytes], broadcasts: list[bytes]) -> bytes:
    record = Record(head["have"], parts[0], parts[1], head["pending"])
    broadcast = broadcasts[head["broadcast"]]
    return pipes.pack_answer(clients.answer(head["client"], record, head["accepted"], broadcast, head["purpose"]))


def _frame(clients: Clients, head: dict[str, Any], parts: list[bytes], broadcasts: list[bytes]) -> bytes:
    return pipes.pack_reading(clients.read(head["client"], parts[0]))
