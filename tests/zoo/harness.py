"""One model trained in one way, several times: is every run the same to the bit, or refused before it begins?

A cell's outcome is `same`, `refused: MESSAGE` or `fault: WHAT`. A run that is not refused must end with all clients
heard, with finite numbers, with frozen parameters and constants as they were, and leave the same bytes again, whatever
torch, numpy and random have drawn before and whatever the number of workers. A refusal is a ConfigError, DataError or
TrainingError of one line before round 1 that names a tensor, a layer or a setting. All else is a fault.
"""

import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from tests.zoo.families.pieces import Entry
from tests.zoo.models import MODELS
from tests.zoo.ways import WAYS
from tests.zoo.zoodata import SAMPLES
from torch import nn

from thinwire.api import settings
from thinwire.errors import ConfigError, DataError, TrainingError
from thinwire.methods.base import seeded
from thinwire.models import build
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import Experiment, parse
from thinwire.runtime.ledger import Round
from thinwire.runtime.simulate import Simulation

ROUNDS, SEED, LR = 2, 0, 0.05
SHAPES = {"vectors": ((6,), 3), "images": ((1, 8, 8), 3), "text": ((12,), 5)}
REFUSALS = (ConfigError, DataError, TrainingError)
START_METHOD = "THINWIRE_START_METHOD"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of runs need no disk


@dataclass
class Evidence:
    """What a run left: digests of all that crossed and of the model file, its ledger, the model; or its error."""

    begun: int = 0  # rounds
    crossed: list[str] = field(default_factory=list)
    shipped: str = ""
    rounds: list[Round] = field(default_factory=list)
    model: nn.Module | None = None
    error: Exception | None = None

    @property
    def numbers(self) -> list[tuple[float | None, ...]]:
        """Losses and accuracies of the rounds."""
        return [(r.train_loss, r.loss, r.accuracy, r.personal_accuracy, r.total_bytes) for r in self.rounds]


def experiment(name: str, way: str) -> Experiment:
    """The run of a cell."""
    entry = MODELS[name]
    common = {
        "data": f"tests.zoo.zoodata:{entry.data}", "model": entry.spec, "partition": "natural:site",
        "clients": len(SAMPLES), "rounds": ROUNDS, "seed": SEED, "device": "cpu", "lr": LR, "batch_size": 16,
    }  # fmt: skip
    return parse(settings(**common | WAYS[way]))


@contextmanager
def _watched(evidence: Evidence) -> Iterator[None]:
    """Counts the rounds that begin; numpy's warnings are errors, those of torch about a layer's age are not ours."""
    play = Simulation.play

    def counted(self, progress):
        evidence.begun += 1
        return play(self, progress)

    with warnings.catch_warnings(), patch.object(Simulation, "play", counted):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        yield


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def run_once(name: str, way: str, before: int = 0, workers: int = 1, start_method: str = "fork") -> Evidence:
    """Run a cell once. `before`: how torch, numpy and random stand when it begins, which must not matter."""
    evidence = Evidence()
    torch.manual_seed(before)
    random.seed(before)
    np.random.seed(before)  # noqa: NPY002  a model may draw from it

    with (
        TemporaryDirectory(dir=MEMORY) as folder,
        _watched(evidence),
        patch.dict(os.environ, {START_METHOD: start_method}),
    ):
        out = Path(folder) / "run"

        def on_round(entry: Round, rounds: int) -> None:
            evidence.rounds.append(entry)
            sent = sorted((out / "frames").glob(f"round-{entry.round}-*.tw"))
            evidence.crossed += [f"{path.name} {_digest(path.read_bytes())}" for path in sent]

        try:
            cell = experiment(name, way)
            result = runs.start(cell, out, workers=workers, save_frames=True, on_round=on_round)
            evidence.model = result.model
            evidence.shipped = _digest(next(out.glob("model.*")).read_bytes())
        except Exception as error:  # whatever comes is judged
            evidence.error = error
    return evidence


def outcome(name: str, way: str, start_method: str = "fork") -> str:
    """What the cell comes to: `same`, `refused: MESSAGE` or `fault: WHAT`."""
    first = run_once(name, way, before=1)
    if first.error:
        return _refusal(name, way, first)
    if what := _unsound(MODELS[name], first, way):
        return f"fault: {what}"
    if two := _difference(first, run_once(name, way, before=2, workers=2, start_method=start_method)):
        again = _difference(first, run_once(name, way, before=3))  # only now, to tell one fault from the other
        return f"fault: a second run: {again}" if again else f"fault: two workers: {two}"
    return "same"


def _refusal(name: str, way: str, evidence: Evidence) -> str:
    error = evidence.error
    text, kind = str(error), type(error).__name__
    if not isinstance(error, REFUSALS):
        return f"fault: {kind} in round {evidence.begun}: {_one_line(text)}"
    if evidence.begun:
        return f"fault: refused in round {evidence.begun}, not before: {_one_line(text)}"
    if "\n" in text:
        return f"fault: refused in several lines: {_one_line(text)}"
    if not names_something(text, name, way):
        return f"fault: refused without a name: {text}"
    return f"refused: {text}"


def names_something(text: str, name: str, way: str) -> bool:
    """Does a message name a tensor, a layer (by its name or its type) or a setting?"""
    model = build(MODELS[name].spec, *SHAPES[MODELS[name].data])
    names = {part for part, _ in [*model.named_parameters(), *model.named_buffers(), *model.named_modules()] if part}
    types = {type(module).__name__ for module in model.modules()}
    words = set(re.findall(r"[\w.\-]+", text))
    return bool(words & (names | types | _keys(experiment(name, way).model_dump())))


def _keys(table: dict, head: str = "") -> set[str]:
    """All dotted keys of nested settings, sections included."""
    inner = [_keys(value, f"{head}{key}.") for key, value in table.items() if isinstance(value, dict)]
    return {f"{head}{key}" for key in table}.union(*inner)


def _unsound(entry: Entry, evidence: Evidence, way: str = "fedavg") -> str:
    """What is wrong with a run that ended; empty if nothing is."""
    for line in evidence.rounds:
        if line.dropped or line.skipped:
            return f"round {line.round}: dropped {_one_line(str(line.dropped or line.skipped))}"
        for what in ("train_loss", "loss"):
            if not np.isfinite(getattr(line, what)):
                return f"round {line.round}: {what} is {getattr(line, what)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initial = seeded(lambda: build(entry.spec, *SHAPES[entry.data]), SEED)
    before, after = initial.state_dict(keep_vars=True), evidence.model.state_dict()
    if before.keys() - after.keys():
        return f"missing in the shipped model: {sorted(before.keys() - after.keys())}"
    if way == "local":  # nothing comes back to the server: its model stays the initial one
        entry = entry._replace(grows=())
    changes = (_changed(key, tensor, after[key], entry) for key, tensor in before.items())
    return next(filter(None, changes), "")


def _changed(key: str, before: torch.Tensor, after: torch.Tensor, entry: Entry) -> str:
    """What is wrong with a tensor of the shipped model."""
    frozen = isinstance(before, nn.Parameter) and not before.requires_grad
    if after.dtype != before.dtype or after.shape != before.shape:
        return f"{key}: was {before.dtype} {tuple(before.shape)}, is {after.dtype} {tuple(after.shape)}"
    if (frozen or key in entry.kept) and _bytes(before) != _bytes(after):
        return f"{'frozen' if frozen else 'constant'} {key} changed"
    if key in entry.grows and not (after > before).all():
        return f"counter {key}: was {before.tolist()}, is {after.tolist()}"
    if key.endswith("running_var") and (after < 0).any():
        return f"{key}: a negative variance"
    if bad := int(((~torch.isfinite(after)) & torch.isfinite(before.detach())).sum()):
        return f"{key}: {bad} numbers are no longer finite"
    return ""


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().clone(memory_format=torch.contiguous_format).untyped_storage())


def _difference(first: Evidence, second: Evidence) -> str:
    """In what a run differs from the first one; empty if in nothing."""
    if second.error:
        return f"{type(second.error).__name__}: {_one_line(str(second.error))}"
    if dropped := [line.dropped for line in second.rounds if line.dropped]:
        return f"dropped {_one_line(str(dropped[0]))}"
    if first.crossed != second.crossed:
        other = [line for line, same in zip(second.crossed, first.crossed, strict=False) if line != same]
        return f"other bytes in {other[0].split()[0] if other else 'the number of frames'}"
    if first.shipped != second.shipped:
        return "another model file"
    if first.numbers != second.numbers:
        return "the same bytes, other losses or accuracies"
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
