"""Is a deployment the same as one process? A run over SuperLink and SuperNodes, and the same run here, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.flower.deployment import Deployment
from thinwire.modelfile import save_bytes
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import Experiment, to_toml
from thinwire.runtime.recorder import FRAMES

_PROJECT = """[project]
name = "thinwire-check"
version = "1.0.0"
description = "An experiment of thinwire's"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "thinwire"
[tool.flwr.app.components]
serverapp = "check.server_app:app"
clientapp = "check.client_app:app"
[tool.flwr.app.config]
out = ""
"""
_APP = """from pathlib import Path
from thinwire.flower import {name}
app = {name}(Path(__file__).parents[1] / "thinwire.toml"{more})
"""


@dataclass(frozen=True)
class Check:
    """Both run directories, how many frames were compared, and in what they differ (nothing, one hopes)."""

    here: Path
    there: Path
    frames: int
    differences: tuple[str, ...]


def write_app(experiment: Experiment, folder: Path) -> Path:
    """A Flower app for an experiment; its run directory is run-config `out`."""
    files = {
        "pyproject.toml": _PROJECT,
        "thinwire.toml": to_toml(experiment),
        "check/__init__.py": "",
        "check/server_app.py": _APP.format(name="server_app", more=", save_frames=True"),
        "check/client_app.py": _APP.format(name="client_app", more=""),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_bytes(text.encode(), folder / name)
    return folder


def check(experiment: Experiment, deployment: Deployment, folder: Path, timeout_seconds: float) -> Check:
    """Run an experiment on a deployment with one node a client, and in this process, into two folders of `folder`."""
    here, there = folder / "one-process", folder / "deployment"
    runs.start(experiment, here, workers=1, save_frames=True)
    app = write_app(experiment, folder / "app")
    deployment.run(app, {"out": str(there.absolute())}, timeout=timeout_seconds)
    frames = sorted(path.name for path in (here / FRAMES).glob("*.tw"))
    return Check(here, there, len(frames), tuple(_differences(here, there)))


def _differences(here: Path, there: Path) -> Iterator[str]:
    """What is not the same in two run directories: lines of the ledger but for the seconds, frames, the model."""
    ours, theirs = _ledger(here), _ledger(there)
    if len(ours) != len(theirs):
        yield f"rounds: {len(ours)} here, {len(theirs)} there"
    for one, other in zip(ours, theirs, strict=False):
        for field in one:
            if one[field] != other.get(field):
                yield f"round {one['round']}: {field} is {one[field]} here, {other.get(field)} there"
    for path in sorted([*here.glob("model.*"), *(here / FRAMES).iterdir()]):
        twin = there / path.relative_to(here)
        if not twin.is_file() or twin.read_bytes() != path.read_bytes():
            yield f"{path.relative_to(here)}: {'other bytes' if twin.is_file() else 'not'} there"


def _ledger(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / runs.ROUNDS).read_text(encoding="utf-8").splitlines()]
    return [{field: value for field, value in line.items() if field != "seconds"} for line in lines]
