"""One run from experiment to run directory: assemble, play the rounds, commit each, leave summary, model and page."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as package_version
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import torch
from torch import nn

from thinwire import data as datasets
from thinwire import modelfile, models
from thinwire.codecs import Codec, from_config, to_config
from thinwire.data import Dataset
from thinwire.errors import ConfigError, DataError
from thinwire.frame import MAGIC
from thinwire.methods import METHODS, Data, Method, Setup
from thinwire.runtime import checkpoint
from thinwire.runtime.client import Clients
from thinwire.runtime.experiment import Experiment, parse, read_file, to_toml
from thinwire.runtime.ledger import Ledger, Round
from thinwire.runtime.pool import default_workers, open_pool
from thinwire.runtime.simulate import Progress, Simulation
from thinwire.train import Local, evaluate

CONFIG, ROUNDS, SUMMARY, CHECKPOINT, REPORT = "config.toml", "rounds.jsonl", "summary.json", "checkpoint", "report.html"
OnRound = Callable[[Round, int], None]  # the round just committed, rounds in all


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, summary.json, the lines of the ledger, and the shipped model, read back."""

    out: Path
    summary: dict[str, Any]
    rounds: list[Round]
    model: nn.Module


@dataclass(frozen=True)
class Assembly:
    """An experiment with its data dealt and its method built."""

    experiment: Experiment
    dataset: Dataset
    parts: list[Any]
    device: str

    @cached_property
    def method(self) -> Method:
        """The method over this experiment's set-up."""
        settings = dict(self.experiment.method)
        return METHODS[settings.pop("name")](self.setup, settings)

    @cached_property
    def setup(self) -> Setup:
        """What server and clients are built from."""
        experiment = self.experiment
        uplink, downlink = dict(experiment.uplink), dict(experiment.downlink)
        feedback = uplink.pop("error_feedback", False)
        if not isinstance(feedback, bool):
            raise ConfigError("uplink.error_feedback", feedback, "true or false")
        return Setup(
            build=self.build,
            local=Local(**experiment.local.model_dump()),
            seed=experiment.seed,
            run=self.run_id,
            fraction=experiment.cohort.share(len(self.clients)),
            device=self.device,
            uplink=_codec(uplink, "uplink"),
            downlink=_codec(downlink, "downlink"),
            error_feedback=feedback,
            server=experiment.server.optimizer,
        )

    @property
    def resolved(self) -> Experiment:
        """The experiment with its codecs spelt out and what it was made with: config.toml."""
        uplink = to_config(self.method.uplink) | {"error_feedback": self.setup.error_feedback}
        update = {"uplink": uplink, "downlink": to_config(self.method.downlink), "versions": versions()}
        return self.experiment.model_copy(update=update)

    @cached_property
    def run_id(self) -> int:
        """32 bits that frames of this run carry: a digest of everything that shapes them."""
        shaping = self.experiment.model_dump(
            exclude={"rounds", "device", "uplink", "downlink", "versions", "checkpoint"}
        )
        return crc32(json.dumps(shaping, sort_keys=True).encode())

    def build(self) -> nn.Module:
        """A fresh model for these data."""
        return models.build(self.experiment.model.source, self.dataset.shape, self.dataset.classes)

    @property
    def description(self) -> dict[str, Any]:
        """What a model file says of its architecture; a model of one's own stays nameless."""
        name = self.experiment.model.source
        known = {"name": name} if name in models.MODELS else {}
        return known | {"shape": list(self.dataset.shape), "classes": self.dataset.classes}

    @cached_property
    def clients(self) -> list[int]:
        """Clients that hold samples; the others are never asked."""
        return [client for client, part in enumerate(self.parts) if len(part)]

    @property
    def cohort_size(self) -> int:
        """Clients of one round."""
        return max(1, round(self.setup.fraction * len(self.clients)))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and loss of a model on the test split."""
        return evaluate(model, self.dataset.test.x, self.dataset.test.y)

    def client_data(self, client: int) -> Data:
        """One client's samples."""
        split = self.dataset.train.take(self.parts[client])
        return Data(client, split.x, split.y)


def _codec(config: Mapping[str, Any], where: str) -> Codec | None:
    try:
        return from_config(config) if config else None
    except ConfigError as error:
        field = error.field if error.field == "codec id" else error.field.partition(".")[2]
        raise ConfigError(f"{where}.{field.replace('codec ', '')}", error.value, error.allowed) from None


def assemble(experiment: Experiment) -> Assembly:
    """Load the data, deal them out, build the method; every error of the configuration shows here."""
    settings = experiment.data
    dataset = datasets.load(settings.source)
    parts = datasets.partition(dataset, settings.partition, settings.clients, experiment.seed, settings.allow_empty)
    assembly = Assembly(experiment, dataset, parts, _device(experiment.device))
    assembly.method  # noqa: B018  built here so that a wrong setting ends the run before it leaves a directory
    return assembly


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", asked, "cpu or auto: no CUDA device is available here")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def start(
    experiment: Experiment,
    out: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    on_round: OnRound | None = None,
) -> Result:
    """Run an experiment into a new directory. ConfigError when the directory is taken and `force` is not given."""
    assembly = assemble(experiment)
    _claim(out, force)
    modelfile.save_bytes(to_toml(assembly.resolved).encode(), out / CONFIG)
    (out / ROUNDS).touch()
    return _play(assembly, out, Progress(assembly.method.init()), Ledger(out / ROUNDS), workers, on_round)


def resume(out: Path, *, workers: int | None = None, on_round: OnRound | None = None) -> Result:
    """Go on with a run after its last committed round, with the very bytes of the unbroken run."""
    if not (out / CONFIG).is_file():
        raise DataError(f"{out}: no {CONFIG}, this is not a run directory")
    assembly = assemble(parse(read_file(out / CONFIG)))
    if (out / CHECKPOINT / checkpoint.MANIFEST).exists():
        progress, position = checkpoint.load(out / CHECKPOINT, assembly.method.init())
    else:
        progress, position = Progress(assembly.method.init()), 0
    return _play(assembly, out, progress, Ledger.reopen(out / ROUNDS, position), workers, on_round)


def versions() -> dict[str, str]:
    """What the run was made with."""
    return {"python": platform.python_version()} | {
        name: package_version(name) for name in ("thinwire", "torch", "numpy")
    }


def _claim(out: Path, force: bool) -> None:
    """Make the run directory; with force, an older run in it is removed, and nothing but a run ever is.

    A run that was killed before its config.toml had its name leaves nothing but that file's temporary name.
    """
    if out.exists() and (not out.is_dir() or any(path.name != f"{CONFIG}.tmp" for path in out.iterdir())):
        if not force:
            raise ConfigError("out", str(out), "a directory that is new or empty (--force replaces an older run)")
        if not (out / CONFIG).is_file():
            raise ConfigError("out", str(out), "a directory with a run in it: --force replaces nothing else")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: the same sums in the same order, whatever the number of workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _play(
    assembly: Assembly, out: Path, progress: Progress, ledger: Ledger, workers: int | None, on_round: OnRound | None
) -> Result:
    """Rounds until there are enough, each committed before the next; then what the run leaves behind."""
    number = workers or default_workers(assembly.device, assembly.cohort_size)
    if number > 1 and assembly.device != "cpu":
        raise ConfigError("workers", number, "1 on a GPU")
    began = perf_counter()
    with _one_thread():
        with closing(open_pool(Clients(assembly.method, assembly.client_data, assembly.run_id), number)) as pool:
            simulation = Simulation(assembly.method, pool, assembly.clients, assembly.experiment.seed)
            progress = _play_rounds(assembly, simulation, out / CHECKPOINT, progress, ledger, on_round)
        return _finish(assembly, out, progress, ledger, perf_counter() - began)


def _play_rounds(
    assembly: Assembly,
    simulation: Simulation,
    folder: Path,
    progress: Progress,
    ledger: Ledger,
    on_round: OnRound | None,
) -> Progress:
    method, experiment, saved = assembly.method, assembly.experiment, None
    while (done := method.version(progress.server)) < experiment.rounds:
        progress, work = simulation.play(progress)
        with work.timed("evaluate"):
            scores = assembly.evaluate(method.model(progress.server))
        entry = work.entry(scores["accuracy"], scores["loss"], ledger.total_bytes)
        ledger.append(entry)
        if (done + 1) % experiment.checkpoint.every == 0 or done + 1 == experiment.rounds:
            checkpoint.save(folder, progress, saved, done + 1, ledger.position)
            saved = progress
        if on_round:
            on_round(entry, experiment.rounds)
    return progress


def _finish(assembly: Assembly, out: Path, progress: Progress, ledger: Ledger, seconds: float) -> Result:
    """Ship the model, read it back and measure it, write the summary."""
    shipped = assembly.method.ship(progress.server, assembly.description)
    path = modelfile.save_bytes(shipped, out / ("model.tw" if shipped.startswith(MAGIC) else "model.safetensors"))
    model = modelfile.load(path, assembly.build())
    summary = _summary(assembly, ledger.rounds) | {
        "model_accuracy": assembly.evaluate(model)["accuracy"],
        "model_bytes": len(shipped),
        "model_bpp": 8 * len(shipped) / assembly.method.parameters,
        "wall_seconds": round(seconds, 3),
    }
    modelfile.save_bytes((json.dumps(summary, indent=2) + "\n").encode(), out / SUMMARY)
    return Result(out, summary, ledger.rounds, model)


def _summary(assembly: Assembly, rounds: list[Round]) -> dict[str, Any]:
    """summary.json but for the model file's own numbers."""
    experiment, method = assembly.experiment, assembly.method
    return {
        "method": experiment.method["name"],
        "uplink": method.uplink.id,
        "downlink": method.downlink.id,
        "error_feedback": assembly.setup.error_feedback,
        "data": assembly.dataset.name,
        "model": experiment.model.source,
        "parameters": method.parameters,
        "rounds": len(rounds),
        "accuracy": rounds[-1].accuracy,
        "best_accuracy": max(entry.accuracy for entry in rounds),
        "up_bytes": sum(entry.up_bytes for entry in rounds),
        "down_bytes": sum(entry.down_bytes for entry in rounds),
        "evaluate_bytes": sum(entry.evaluate_bytes for entry in rounds),
        "mean_up_bpp": sum(entry.up_bpp for entry in rounds) / len(rounds),
        "mean_down_bpp": sum(entry.down_bpp for entry in rounds) / len(rounds),
        "last_up_bpp": rounds[-1].up_bpp,
    }


def export(run: Path, out: Path) -> tuple[Path, int, float]:
    """Write the model of the last committed round. -> path, bytes, bits per parameter."""
    if not (run / CONFIG).is_file():
        raise DataError(f"{run}: no {CONFIG}, this is not a run directory")
    assembly = assemble(parse(read_file(run / CONFIG)))
    progress, _ = checkpoint.load(run / CHECKPOINT, assembly.method.init())
    shipped = assembly.method.ship(progress.server, assembly.description)
    return modelfile.save_bytes(shipped, out), len(shipped), 8 * len(shipped) / assembly.method.parameters
