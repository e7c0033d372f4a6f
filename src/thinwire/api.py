"""Training from Python: `run` and `resume` take what the command line takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinwire.report import write_report
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import Experiment, dotted, merge, parse
from thinwire.runtime.folder import REPORT, resumable
from thinwire.runtime.run import OnRound, Result

# Short names of the settings that are used most, as the command line has them too.
SHORT = {
    "clients": "data.clients", "partition": "data.partition", "allow_empty": "data.allow_empty",
    "test_fraction": "data.test_fraction",
    "fraction": "cohort.fraction", "local_epochs": "local.epochs", "batch_size": "local.batch_size",
    "lr": "local.lr", "optimizer": "local.optimizer", "rounds": "rounds", "seed": "seed", "device": "device",
    "uplink": "uplink.id", "downlink": "downlink.id", "method": "method.name",
}  # fmt: skip


def settings(data: str | Path | None = None, model: str | None = None, **options: Any) -> dict[str, Any]:
    """Nested settings of flat options: short names, dotted keys (as `**{"method.epsilon": 0.01}`), whole sections."""
    nested: dict[str, Any] = {}
    if data is not None:
        source = "load" if ":" in str(data) else "path" if "/" in str(data) else "name"
        nested["data"] = {"name": None, "path": None, "load": None, source: str(data)}  # instead of what a file names
    if model is not None:
        nested["model"] = {"name": None, "build": None, "build" if ":" in model else "name": model}
    for name, value in options.items():
        section = isinstance(value, Mapping)
        if value is not None:
            nested = merge(nested, dotted(name if section else SHORT.get(name, name), value))
    return nested


def run(
    method: str = "fedpm",
    *,
    out: str | Path,
    workers: int | None = None,
    force: bool = False,
    save_frames: bool = False,
    on_round: OnRound | None = None,
    **options: Any,
) -> Result:
    """Train a method and leave the run in the directory `out`.

    >>> import tempfile
    >>> result = run("fedpm", data="digits", model="mlp", clients=4, rounds=1, out=tempfile.mkdtemp())
    >>> result.summary["parameters"]
    85002

    Options are those of the command line: data, model, clients, partition, fraction, rounds, local_epochs, batch_size,
    lr, seed, device, uplink and downlink (a codec's id or a dict), and any dotted key of the experiment file.
    ConfigError names a wrong one.
    """
    experiment = parse(settings(method=method, **options))
    return execute(experiment, Path(out), workers=workers, force=force, save_frames=save_frames, on_round=on_round)


def resume(
    out: str | Path, *, workers: int | None = None, on_round: OnRound | None = None, trust: bool = False
) -> Result:
    """Go on with a run that was stopped, with the very bytes of the unbroken run.

    trust: import the functions that its config.toml names, also if this user has not begun the run here.
    """
    return _with_page(runs.resume(Path(out), workers=workers, on_round=on_round, trust=trust))


def execute(
    experiment: Experiment,
    out: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    save_frames: bool = False,
    on_round: OnRound | None = None,
) -> Result:
    """Run a checked experiment into a new directory, report page included."""
    return _with_page(
        runs.start(experiment, out, workers=workers, force=force, save_frames=save_frames, on_round=on_round)
    )


def _with_page(result: Result) -> Result:
    with resumable(result.out):
        write_report([result.out], result.out / REPORT)
    return result
