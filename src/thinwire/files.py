"""Files that may come from elsewhere: plain ones, of a size that can be read, inside the folder that they are in."""

from __future__ import annotations

import os
import stat
from itertools import chain
from pathlib import Path

from thinwire.errors import DataError
from thinwire.machine import memory_bytes

DEEP = ("checkpoint", "frames")  # folders of a run, looked through as well
MOST_BYTES = {".toml": 2**24, ".json": 2**24, ".jsonl": 2**30, ".csv": 2**30}  # of files that are read as text


def read_plain(path: Path) -> bytes:
    """A file's bytes; DataError when it is no plain file, more than the memory holds, or cannot be read."""
    try:
        _check(path, path.stat())
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def check_folder(run: Path) -> None:
    """DataError names what no run leaves in its folder: a link that leads out, a pipe or device, a file too large.

    A run reads and replaces its files by name. A link among them would show, or overwrite, a file of somebody else.
    """
    try:
        home = run.resolve()
        for path in chain(_entries(run), *(_entries(run / name) for name in DEEP)):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise DataError(f"{path}: a link that leads out of the run's folder; put the file itself there")
            if path.exists() and not path.is_dir():
                _check(path, path.stat())
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise DataError(f"{run}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: a folder, a pipe or a device, not a file")
    most = MOST_BYTES.get(path.suffix, memory_bytes())
    if found.st_size > most:
        raise DataError(f"{path}: {found.st_size} bytes, at most {most} for such a file on this machine")
