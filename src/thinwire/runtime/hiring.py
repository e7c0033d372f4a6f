"""How worker processes start: as forks that inherit the clients, or anew, with a recipe to build them from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from time import monotonic
from typing import Any

from thinwire.errors import ThinwireError
from thinwire.runtime import pipes, recipe, worker
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import Clients
from thinwire.runtime.interruption import ignored

NAME = "thinwire worker"
SAFE = "PYTHONSAFEPATH"
GRACE_SECONDS = 3.0  # for processes to end by themselves
LONG_SECONDS = 300.0  # after which a process that is not ready is named
SCRIPT = "a script must start runs under `if __name__ == '__main__':`, since its worker processes import it"
Hired = tuple[BaseProcess, Connection]  # a worker, and this process's end of its pipe


class NoWorkersError(ThinwireError):
    """Worker processes cannot start, or cannot build what they need."""


def refuse_in_import() -> None:
    """End a worker that only imports the script of the run and comes to that very run; refuse it in other processes.

    The process that started the worker says why.
    """
    process = current_process()
    if not getattr(process, "_inheriting", False):  # as multiprocessing itself marks the time of the import
        return
    if process.name.startswith(NAME):
        raise SystemExit(1)
    raise ThinwireError(SCRIPT)


def end(processes: Sequence[BaseProcess]) -> None:
    """End processes, whatever they do: those that SIGTERM does not end in time, as one that is stopped, by SIGKILL."""
    until = monotonic() + GRACE_SECONDS
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, until - monotonic()))
    finally:  # after another Ctrl-C too
        for process in processes:
            process.kill()
    for process in processes:
        process.join(GRACE_SECONDS)  # longer only in the middle of a call of the system that nothing ends


def dismiss(hired: Sequence[Hired]) -> None:
    """End workers that were not set to work."""
    end([process for process, _ in hired])
    for _, pipe in hired:
        pipe.close()


def forked(clients: Clients, number: int) -> list[Hired]:
    """Forks of this process, with all that it has."""
    context, hired = get_context("fork"), list[Hired]()
    for _ in range(number):
        ours, theirs = context.Pipe()
        others = [*(pipe for _, pipe in hired), ours]
        hired.append((_started(context, worker.inherit, clients, theirs, others), ours))
        theirs.close()
    return hired


@contextmanager
def _safe_path() -> Iterator[None]:
    """New interpreters look for nothing in the working directory before they are told this process's sys.path."""
    before, os.environ[SAFE] = os.environ.get(SAFE), "1"
    try:
        yield
    finally:
        os.environ.pop(SAFE)
        if before is not None:
            os.environ[SAFE] = before


def anew(assembly: Assembly, number: int, method: str, folder: Path) -> list[Hired]:
    """Processes that start by `spawn` or `forkserver`, ready to work; they map the files that come into the folder.

    NoWorkersError where one cannot be made ready.
    """
    context: Any = get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([worker.__name__])  # imported once for all; the script in the workers alone
    hired = list[Hired]()
    with ExitStack() as stack:
        stack.callback(lambda: dismiss(hired))
        written = pipes.pack(recipe.write(assembly, folder))
        with ignored(), _safe_path():
            for _ in range(number):
                hired.append(_launched(context))
        for process, pipe in hired:
            _hand_over(process, pipe, written)
        for process, pipe in hired:
            _await(process, pipe)
        stack.pop_all()
    return hired


def _launched(context: Any) -> Hired:
    ours, theirs = context.Pipe()
    try:
        return _started(context, worker.arrive, theirs), ours
    except (EOFError, OSError) as error:  # of a server of forks that has ended
        ours.close()
        raise NoWorkersError(f"a worker process cannot start ({type(error).__name__}: {error})") from None
    finally:
        theirs.close()


def _started(context: Any, target: Any, *args: Any) -> BaseProcess:
    process: BaseProcess = context.Process(target=target, args=args, name=NAME, daemon=True)
    process.start()
    return process


def _hand_over(process: BaseProcess, pipe: Connection, written: bytes) -> None:
    try:
        pipe.send_bytes(written)
    except OSError:
        raise _ended(process) from None


def _await(process: BaseProcess, pipe: Connection) -> None:
    """Wait until a worker has built its clients; name it when that takes long."""
    ready = wait([pipe, process.sentinel], LONG_SECONDS)
    if not ready:
        said = f"has taken {LONG_SECONDS:g} s to build its clients and is not done"
        print(f"worker process {process.pid} {said}", file=sys.stderr)
        ready = wait([pipe, process.sentinel])
    if pipe not in ready:
        raise _ended(process)
    try:
        (head,) = pipes.unpack(pipe.recv_bytes())
    except (EOFError, OSError):
        raise _ended(process) from None
    if head["failed"]:
        raise NoWorkersError(f"a worker process cannot build its clients: {head['failed']}")


def _ended(process: BaseProcess) -> ThinwireError:
    """Why a worker ended too early: killed, or by the end of its script."""
    process.join()
    if (process.exitcode or 0) < 0:
        return ThinwireError(pipes.WORKER_ENDED)
    return NoWorkersError(f"a worker process ended before its first task: {SCRIPT}")
