"""Whose code a run's folder names: it is imported only if this user began the run on this machine, or says so.

config.toml may name functions of one's own, `module:function`, and going on with the run imports them. A folder that
came from elsewhere must not. A run that names any leaves a random token in checkpoint/mark, and an empty file outside,
in the user's state folder, called by a digest of token and names: a folder can carry a token, but not that file.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.modelfile import save_bytes
from thinwire.runtime.experiment import Experiment
from thinwire.runtime.folder import CHECKPOINT, CONFIG

MARK = "mark"
ALLOWED = (
    "a name of the library: the run was not begun by this user on this machine, and its folder names code that would "
    "be imported; look at it, then say --trust (in Python, trust=True)"
)


def names(experiment: Experiment) -> dict[str, str]:
    """The functions that an experiment names, by setting."""
    found = {"model.build": experiment.model.build, "data.load": experiment.data.load}
    return {setting: spec for setting, spec in found.items() if spec}


def mark(out: Path, experiment: Experiment) -> None:
    """Note that a run is this user's. Where the state folder cannot be written, the run is marked nowhere."""
    if not (found := names(experiment)):
        return
    token = secrets.token_hex(16)
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / _name(token, found)).touch()
    except OSError:
        return
    (out / CHECKPOINT).mkdir(exist_ok=True)
    save_bytes(token.encode(), out / CHECKPOINT / MARK)


def is_own(out: Path, experiment: Experiment) -> bool:
    """Does a run name no code, or was it begun by this user on this machine, with the names that it has now?"""
    if not (found := names(experiment)):
        return True
    try:
        token = (out / CHECKPOINT / MARK).read_text(encoding="ascii") if (out / CHECKPOINT / MARK).is_file() else ""
        return bool(token) and (_folder() / _name(token, found)).is_file()
    except (OSError, ValueError):
        return False


def check(out: Path, experiment: Experiment, trust: bool) -> None:
    """ConfigError names the code that the run's folder wants to have imported, unless it is trusted."""
    if not trust and not is_own(out, experiment):
        setting, spec = next(iter(names(experiment).items()))
        raise ConfigError(f"{out / CONFIG}: {setting}", spec, ALLOWED)


def _folder() -> Path:
    """$XDG_STATE_HOME/thinwire/runs, ~/.local/state unless told."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "thinwire" / "runs"


def _name(token: str, found: dict[str, str]) -> str:
    return sha256("\n".join([token, *found.values()]).encode()).hexdigest()[:32]
