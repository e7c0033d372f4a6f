"""Real client updates to measure codecs on: small federations of thinwire's own, their updates as clients encode them.

`python -m benchmarks.updates FOLDER` plays every federation that has left nothing in FOLDER yet and writes
FOLDER/NAME-rROUND.npz: `x`, the update of one client, float32; `shared`, the last change of the global model, which
both ends hold; `shapes`, JSON of [name, shape, role] of its tensors. Half of the federations are for tuning, the other
half is measured only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from thinwire import data
from thinwire.api import execute
from thinwire.codecs import CODECS, Context, Float32
from thinwire.data import Dataset
from thinwire.layout import Layout
from thinwire.runtime.experiment import parse

FOLDER = Path("runs/updates")
CLIENT = 1  # whose updates are kept


@dataclass(frozen=True)
class Federation:
    """Where updates come from: settings of its run, the rounds kept, and whether codecs may be tuned on them."""

    settings: dict[str, Any]
    rounds: tuple[int, int, int]
    tuning: bool


def _federation(
    model: str, source: str, partition: str, rounds: tuple[int, int, int], tuning: bool, **more: Any
) -> Any:
    local = {"batch_size": 32, "lr": 0.05, "momentum": 0.9} | more.pop("local", {})
    settings = {
        "rounds": rounds[-1],
        "device": "cpu",
        "data": {"load": f"benchmarks.updates:{source}", "clients": 4, "partition": partition},
        "model": {"name": model},
        "local": local,
        "evaluation": {"server_every": rounds[-1]},
        "method": {"name": "fedavg"},
    } | more
    return Federation(settings, rounds, tuning)


_FEDPARA = {"name": "fedpara", "gamma": 0.1}
_LSTM = {"batch_size": 16, "lr": 1.0, "momentum": 0.0, "clip": 5.0}
FEDERATIONS: dict[str, Federation] = {
    "lenet-iid": _federation("lenet", "digits_of_mnist", "iid", (2, 8, 20), True),
    "lenet-dirichlet": _federation("lenet", "digits_of_mnist", "dirichlet:0.3", (2, 8, 20), False, seed=1),
    "conv4-dirichlet": _federation("conv4", "photographs", "dirichlet:0.3", (2, 6, 15), True, local={"lr": 0.02}),
    "conv4-iid": _federation("conv4", "photographs", "iid", (2, 6, 15), False, seed=1, local={"lr": 0.02}),
    "fedpara-iid": _federation(
        "conv4", "photographs", "iid", (2, 6, 15), True, parameterisation=_FEDPARA, local={"lr": 0.02}
    ),
    "fedpara-dirichlet": _federation(
        "conv4",
        "photographs",
        "dirichlet:0.3",
        (2, 6, 15),
        False,
        seed=1,
        parameterisation=_FEDPARA,
        local={"lr": 0.02},
    ),
    "lenet-long": _federation("lenet", "digits_of_mnist", "iid", (2, 4, 6), False, local={"epochs": 5}),
    "lstm-a": _federation("charlstm", "plays", "iid", (2, 6, 15), True, local=_LSTM),
    "lstm-b": _federation("charlstm", "plays", "contiguous", (2, 6, 15), False, seed=1, local=_LSTM),
    "vgg16-iid": _federation("vgg16", "few_photographs", "iid", (2, 5, 10), True, local={"lr": 0.02}),
    "vgg16-dirichlet": _federation(
        "vgg16", "few_photographs", "dirichlet:0.3", (2, 5, 10), False, seed=1, local={"lr": 0.02}
    ),
}


def _first(name: str, train: int, test: int) -> Dataset:
    full = data.load(name)
    return Dataset(f"{name}-{train}", full.train.take(np.arange(train)), full.test.take(np.arange(test)), full.classes)


digits_of_mnist = partial(_first, "mnist", 4000, 200)
photographs = partial(_first, "cifar10", 1000, 100)
few_photographs = partial(_first, "cifar10", 400, 50)
plays = partial(_first, "tinyshakespeare", 1000, 50)


@dataclass(frozen=True)
class Recorder(Float32):
    """float32 that leaves what it encodes in a folder: one file a call, in the order of the calls."""

    id: ClassVar[str] = "recorder"
    folder: str = field(default="")

    def encode(self, x: np.ndarray, context: Context) -> bytes:
        """4 n bytes, and a file."""
        shapes = json.dumps([[entry.name, list(entry.shape), entry.role] for entry in context.layout])
        shared = np.zeros(0, np.float32) if context.shared is None else context.shared
        count = len(list(Path(self.folder).glob("*.npz")))
        np.savez(Path(self.folder) / f"{count:06d}.npz", x=x, shared=shared, shapes=shapes)
        return super().encode(x, context)


def record(name: str, federation: Federation, folder: Path) -> None:
    """Play one federation and keep the updates of CLIENT in its rounds."""
    CODECS[Recorder.id] = Recorder
    with TemporaryDirectory() as scratch:
        settings = federation.settings | {"uplink": {"id": Recorder.id, "folder": scratch}}
        execute(parse(settings), Path(scratch) / "run", workers=1)
        clients = federation.settings["data"]["clients"]
        calls = sorted(Path(scratch).glob("*.npz"))
        if len(calls) != clients * federation.rounds[-1]:
            raise SystemExit(
                f"{name}: {len(calls)} updates, expected {clients} in each of {federation.rounds[-1]} rounds"
            )
        for round in reversed(federation.rounds):
            calls[(round - 1) * clients + CLIENT].rename(folder / f"{name}-r{round:02d}.npz")


@dataclass(frozen=True)
class Update:
    """One recorded update with what both ends know."""

    name: str
    x: np.ndarray
    context: Context
    tuning: bool


def load(folder: Path = FOLDER, only: str = "") -> Iterator[Update]:
    """The recorded updates whose name holds `only`, one at a time."""
    for path in sorted(folder.glob("*.npz")):
        if only in path.stem:
            yield read(path)


def read(path: Path) -> Update:
    """One recorded update."""
    stored = np.load(path)
    described = json.loads(str(stored["shapes"]))
    layout = Layout.of({n: shape for n, shape, _ in described}, {n: role for n, _, role in described})
    shared = stored["shared"] if stored["shared"].size else None
    federation = FEDERATIONS[path.stem.rpartition("-r")[0]]
    return Update(path.stem, stored["x"], Context(layout, shared), federation.tuning)


def main(folder: Path = FOLDER) -> None:
    """Record what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, federation in FEDERATIONS.items():
        if not (folder / f"{name}-r{federation.rounds[0]:02d}.npz").exists():
            record(name, federation, folder)
            print(name, flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
