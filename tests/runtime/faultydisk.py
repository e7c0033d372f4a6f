"""A disk that fails at its n-th operation: it is full, the process dies, or the power goes.

`Disk` stands between a run and the files under one folder. Operations are what changes a disk: opening a file to write,
writing, fsync, renaming, removing, cutting, making a directory. After a power cut only what was synced is there: a file
that was not is cut to half, a renaming whose folder was not is undone.
"""

import builtins
import errno
import os
from contextlib import contextmanager
from pathlib import Path

FULL, CRASH, POWER = "full", "crash", "power"
TAKES_NO_ROOM = ("unlink", "rmdir", "truncate")


class Crash(BaseException):
    """The process is dead: nothing that it does afterwards reaches the disk."""


class Disk:
    """Fails from operation number `at` on; with `at` None it only counts. `log`: the operations, by kind and name."""

    def __init__(self, folder, how=None, at=None):
        self.folder, self.how, self.at = str(folder), how, at
        self.log = []
        self.unsynced, self.renamed = set(), []  # files written; (target, its bytes before or None)

    def ours(self, path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.folder)

    def operate(self, kind, path, half=lambda: None):
        """Count one operation, or fail at it; `half` is what a failing one still does."""
        self.log.append((kind, Path(path).name))
        if self.at is None or len(self.log) <= self.at:
            return
        if self.how == FULL:
            if kind not in TAKES_NO_ROOM:
                half()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        if len(self.log) == self.at + 1:
            half()
        raise Crash

    @contextmanager
    def between(self, monkeypatch):
        """Inside, the folder lies on this disk; -> afterwards it holds what survives."""
        with monkeypatch.context() as patch:
            for kind in ("unlink", "rmdir", "truncate", "mkdir", "replace"):
                patch.setattr(os, kind, self._counted(kind, getattr(os, kind)))
            patch.setattr(os, "fsync", self._fsync)
            patch.setattr(builtins, "open", self._open(builtins.open))
            yield self
        if self.how == POWER:
            self._lose()

    def _counted(self, kind, real):
        def call(path, *rest, **more):
            if self.ours(path):
                self.operate(kind, path)
                if kind == "replace":
                    target = Path(rest[0])
                    self.renamed.append((target, target.read_bytes() if target.exists() else None))
                    if str(path) in self.unsynced:
                        self.unsynced.add(str(target))
            return real(path, *rest, **more)

        return call

    def _fsync(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if self.ours(path):
            self.operate("fsync", path)
            self.unsynced.discard(path)
            self.renamed = [(target, before) for target, before in self.renamed if str(target.parent) != path]

    def _open(self, real):
        def call(path, mode="r", *rest, **more):
            if not self.ours(path) or "b" not in mode or mode == "rb":
                return real(path, mode, *rest, **more)
            self.operate("open", path)
            file = real(path, mode, *rest, **more)
            self.unsynced.add(str(path))
            write = file.write

            class Writer:
                def __enter__(this):
                    return this

                def __exit__(this, *error):
                    file.close()

                def write(this, data):
                    def half():
                        write(data[: len(data) // 2])
                        file.flush()

                    self.operate("write", path, half)
                    return write(data)

                def __getattr__(this, name):
                    return getattr(file, name)

            return Writer()

        return call

    def _lose(self):
        for target, before in reversed(self.renamed):
            target.unlink(missing_ok=True) if before is None else target.write_bytes(before)
            self.unsynced.discard(str(target))
        for name in self.unsynced:
            if os.path.exists(name):
                os.truncate(name, os.path.getsize(name) // 2)
