"""Whose code a run's folder names: it is imported only if this user began the run here, or says so.

config.toml may name functions of one's own, `module:function`, and going on with the run imports them. A folder that
came from elsewhere must not. Who begins a run that names any leaves an empty file in the user's state folder, called by
a digest of the run's path and of the names: nothing in a folder can stand for that file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.runtime.experiment import Experiment
from thinwire.runtime.folder import CONFIG

SOURCES = ("model.build", "model.name", "data.load", "data.name", "data.path")  # what a colon makes a function of
ALLOWED = (
    "a name of the library: this user has not begun the run here, and going on imports the code that its folder "
    "names; look at it, then say --trust (in Python, trust=True)"
)


def imports(setting: str, spec: object) -> bool:
    """Does this setting's value name a function? Any source may, whatever its key; only data's may be a folder."""
    if setting not in SOURCES or ":" not in str(spec):
        return False
    return not (setting.startswith("data.") and Path(str(spec)).is_dir())


def names(experiment: Experiment) -> dict[str, str]:
    """The functions that an experiment names, by setting."""
    sections = {"model": experiment.model, "data": experiment.data}
    found = {setting: getattr(sections[setting.split(".")[0]], setting.split(".")[1]) for setting in SOURCES}
    return {setting: spec for setting, spec in found.items() if imports(setting, spec)}


def mark(out: Path, experiment: Experiment) -> None:
    """Note that the user begins a run here. Where the state folder cannot be written, there is no note."""
    if found := names(experiment):
        with suppress(OSError):
            _folder().mkdir(parents=True, exist_ok=True)
            (_folder() / _name(out, found)).touch()


def is_own(out: Path, experiment: Experiment) -> bool:
    """Does a run name no code, or has the user begun it here, with the names that it has now?"""
    found = names(experiment)
    return not found or (_folder() / _name(out, found)).is_file()


def check(out: Path, experiment: Experiment, trust: bool) -> None:
    """ConfigError names the code that the run's folder wants to have imported, unless it is trusted."""
    if not trust and not is_own(out, experiment):
        setting, spec = next(iter(names(experiment).items()))
        raise ConfigError(f"{out / CONFIG}: {setting}", spec, ALLOWED)


def _folder() -> Path:
    """$XDG_STATE_HOME/thinwire/runs; without the variable, ~/.local/state/thinwire/runs."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "thinwire" / "runs"


def _name(out: Path, found: dict[str, str]) -> str:
    return sha256("\n".join([str(out.resolve()), *found.values()]).encode()).hexdigest()[:32]
