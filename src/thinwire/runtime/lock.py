"""One process at a time works in a directory: a lock that is held while it does, and that goes with a killed process.

The lock is the operating system's (`flock`, on Windows `msvcrt.locking`), on the file `.lock` in the directory. The
file names the process that holds the lock. The file alone locks nothing: one that a killed process left does no harm.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thinwire.errors import ThinwireError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # all others
    msvcrt = None  # type: ignore[assignment]

LOCK = ".lock"
FAR = 2**30  # Windows refuses to read the byte that is locked, so it is one behind what the file says
TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_held: set[int] = set()  # descriptors of the locks of this process


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a directory if there is none, and hold its lock inside the `with` block.

    Where the file system keeps no locks, one line on stderr says so and the block runs without one.

    Raises:
        ThinwireError: another process, or another run in this one, holds the lock.
        OSError: the directory or the file cannot be made, on a read-only disk for example; the error names the path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(folder)
    try:
        yield
    finally:
        _release(folder / LOCK, descriptor)


def _locked(folder: Path) -> int:
    """Open and lock the file. -> its descriptor"""
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") if hasattr(os, "pread") else ""
            os.close(descriptor)
            raise _refused(folder, holder, error) from None
        if _is_there(folder / LOCK, descriptor):
            break
        os.close(descriptor)  # its last holder has just removed it: another process may lock the one in its place
    _held.add(descriptor)
    with suppress(OSError):  # a full disk: the lock holds without the name of its holder
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _lock(descriptor: int) -> None:
    """Take the lock, or raise OSError at once."""
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            raise OSError(errno.ENOSYS, "no locks on this system")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        why = f"this file system keeps no locks ({error.strerror})"
        print(f"{why}: see to it that no second process works in the run's directory", file=sys.stderr)


def _refused(folder: Path, holder: str, error: OSError) -> Exception:
    if error.errno not in TAKEN:
        return OSError(error.errno, error.strerror, str(folder / LOCK))
    who = f"another one ({' '.join(holder.split())})" if holder.strip() else "another one"
    return ThinwireError(f"{folder}: one process at a time may work here, and {who} does; wait for its end or stop it")


def _is_there(path: Path, descriptor: int) -> bool:
    """Is the open file still the one of this name?"""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    """Remove the file, then let go of the lock: whoever locks it in between finds that its name is gone."""
    if descriptor not in _held:  # a forked process: the lock is not its own
        return
    _held.discard(descriptor)
    try:
        with suppress(OSError):
            path.unlink()
    finally:
        os.close(descriptor)
    if os.name == "nt":  # where a file that is open cannot be removed
        with suppress(OSError):
            path.unlink()


def _forget() -> None:
    """In a forked process: a worker that outlives a killed run must not keep its lock."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
