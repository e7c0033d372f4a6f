"""The run directory: the names in it, taking it for a new run, and the one line when its disk fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinwire.errors import ConfigError, ThinwireError
from thinwire.runtime.lock import LOCK
from thinwire.runtime.recorder import FRAMES

CONFIG, ROUNDS, SUMMARY, CHECKPOINT, REPORT = "config.toml", "rounds.jsonl", "summary.json", "checkpoint", "report.html"
CLIENTS = "clients.csv"


def check_free(out: Path, force: bool) -> None:
    """ConfigError unless a new run may have the directory: it is free, or `force` is given and a run is in it.

    config.toml is a run's first file to have its name and the last to go, so that a directory is a run or it is free:
    one that was killed before may leave that file's temporary name, its lock and an empty folder for frames.
    """
    if out.exists() and (not out.is_dir() or not all(map(_of_no_run, out.iterdir()))):
        if not force:
            raise ConfigError("out", str(out), "a directory that is new or empty (--force replaces an older run)")
        if not (out / CONFIG).is_file():
            raise ConfigError("out", str(out), "a directory with a run in it: --force replaces nothing else")


def claim(out: Path, force: bool, save_frames: bool) -> None:
    """Make the run directory, whose lock is held; with force, an older run in it is removed, and nothing else ever."""
    check_free(out, force)
    _clear(out)
    (out / FRAMES if save_frames else out).mkdir(parents=True, exist_ok=True)


def _of_no_run(path: Path) -> bool:
    return path.name in (f"{CONFIG}.tmp", LOCK) or (path.name == FRAMES and path.is_dir() and not any(path.iterdir()))


def _clear(out: Path) -> None:
    if out.exists():
        for path in sorted(out.iterdir(), key=lambda path: path.name == CONFIG):
            if path.name == LOCK:  # held by this process
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """What the disk refuses inside, a full one for example, becomes one line that says how to go on."""
    try:
        yield
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise ThinwireError(
            f"{error.filename or out}: {what}; when mended, resume with: thinwire resume {out}"
        ) from None
