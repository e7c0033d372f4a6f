"""What a client-task costs beside plain PyTorch, every frame of it coded and decoded on both sides.

`small`: 1,000 clients of 10 MNIST images, 100 a round, linear 784-10, one step: what remains is overhead. `lenet`: 100
clients of 600 images, 10 a round, one epoch of batches of 32: what remains is training. The bare loop trains the same
clients on the same batches with torch.optim and a running mean of the weights, and makes no byte; with two processes
each forked worker trains half of the cohort and sends back one sum. Rounds are played in turns, so that a drifting
machine hits all alike. `cpu ms` is the time of one processor, where there is one process: it holds on a shared machine.
FedLab, pfl-research and Flower's simulation take part where THINWIRE_PEERS names an interpreter that has them, and only
those that it has (`benchmarks/peers.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen, TimeoutExpired, run
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.measure import ratio, save
from thinwire import data as datasets
from thinwire.api import settings
from thinwire.data import Dataset
from thinwire.models import build
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import parse
from thinwire.runtime.progress import Progress
from thinwire.runtime.recipe import clients_of
from thinwire.runtime.simulate import Simulation
from thinwire.runtime.together import Together
from thinwire.runtime.workers import open_pool, open_reader

LR = 0.05
PEERS = os.environ.get("THINWIRE_PEERS", "")
SCRIPT = Path(__file__).with_name("peers.py")
TITLES = {"fedlab": "FedLab", "pfl": "pfl-research", "flwr": "Flower simulation"}
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """One federation: so many clients of so many images, a cohort of them a round."""

    name: str
    model: str
    clients: int
    images: int
    cohort: int
    batch: int
    rounds: int

    def options(self, **more: Any) -> dict[str, Any]:
        """An experiment's settings."""
        shape = {"clients": self.clients, "fraction": self.cohort / self.clients, "batch_size": self.batch, "lr": LR}
        return settings(**{"data": f"benchmarks.overhead:{self.name}", "model": self.model, **shape, **more})


SMALL = Setting("small", "linear", clients=1_000, images=10, cohort=100, batch=10, rounds=12)
LENET = Setting("lenet", "lenet", clients=100, images=600, cohort=10, batch=32, rounds=3)


@cache
def images(count: int) -> Dataset:
    """The first training images of MNIST, 1,000 test images."""
    full = datasets.load("mnist")
    train, test = full.train.take(np.arange(count)), full.test.take(np.arange(1000))
    return Dataset(f"mnist-{count}", train, test, full.classes)


def small() -> Dataset:
    """10,000 images."""
    return images(SMALL.clients * SMALL.images)


def lenet() -> Dataset:
    """60,000 images."""
    return images(LENET.clients * LENET.images)


class Thinwire:
    """Rounds of thinwire, evaluation and checkpoint left out."""

    def __init__(self, setting: Setting, workers: int, together: bool = False, **options: Any) -> None:
        assembly = runs.assemble(parse(setting.options(**options)))
        self.pool = Together(clients_of(assembly)) if together else open_pool(assembly, workers)
        reader = open_reader(assembly.method, self.pool)
        self.simulation = Simulation(assembly.method, self.pool, assembly.clients, 0, reader=reader)
        self.progress = Progress(assembly.method.init())

    def __call__(self) -> None:
        """A round."""
        self.progress, _ = self.simulation.play(self.progress)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


class Bare:
    """Rounds of a plain PyTorch loop."""

    def __init__(self, setting: Setting, workers: int) -> None:
        self.setting, self.pipes, self.processes = setting, list[Connection](), []
        dataset = globals()[setting.name]()
        self.x, self.y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
        self.model = build(setting.model, dataset.shape, dataset.classes)
        self.state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        for _ in range(workers if workers > 1 else 0):
            ours, theirs = get_context("fork").Pipe()
            process = get_context("fork").Process(target=self._serve, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def _serve(self, pipe: Connection) -> None:
        torch.set_num_threads(1)
        while (work := pipe.recv()) is not None:
            state, part = work
            sums = self._train({name: torch.from_numpy(array) for name, array in state.items()}, part)
            pipe.send({name: tensor.numpy() for name, tensor in sums.items()})

    def _train(self, state: State, cohort: range) -> State:
        """The sum of what the clients of a part of the cohort make of a state."""
        sums = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for client in cohort:
            self.model.load_state_dict(state)
            solver = torch.optim.SGD(self.model.parameters(), lr=LR)
            first = client * self.setting.images
            for chosen in (first + torch.randperm(self.setting.images)).split(self.setting.batch):
                cross_entropy(self.model(self.x[chosen]), self.y[chosen]).backward()
                solver.step()
                solver.zero_grad()
            for name, tensor in self.model.state_dict().items():
                sums[name] += tensor
        return sums

    def __call__(self) -> None:
        """A round."""
        cohort, count = self.setting.cohort, max(1, len(self.pipes))
        parts = [range(cohort * i // count, cohort * (i + 1) // count) for i in range(count)]
        if self.pipes:
            plain = {name: tensor.numpy() for name, tensor in self.state.items()}
            for pipe, part in zip(self.pipes, parts, strict=True):
                pipe.send((plain, part))
            found = [{name: torch.from_numpy(a) for name, a in pipe.recv().items()} for pipe in self.pipes]
        else:
            found = [self._train(self.state, parts[0])]
        self.state = {name: sum(sums[name] for sums in found) / cohort for name in self.state}

    def close(self) -> None:
        """End the workers."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


class Peer:
    """Rounds of another simulator, in an interpreter that has it."""

    def __init__(self, setting: Setting, workers: int, name: str) -> None:
        dataset = globals()[setting.name]()
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name)
        np.savez(path / "samples.npz", x=dataset.train.x, y=dataset.train.y)
        words = asdict(setting) | {"lr": LR, "processes": workers, "samples": str(path / "samples.npz")}
        (path / "setting.json").write_text(json.dumps(words))
        with (path / "log").open("w") as log:
            self.process = Popen(
                [PEERS, str(SCRIPT), name, str(path / "setting.json")], stdin=PIPE, stdout=PIPE, stderr=log, text=True
            )

    def __call__(self) -> None:
        """A round."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise RuntimeError(Path(self.folder.name, "log").read_text()[-2000:])

    def close(self) -> None:
        """Ends when nobody asks any more."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()


def peers(workers: int) -> list[str]:
    """Simulators that the interpreter of THINWIRE_PEERS has; those of one process only where one is asked for."""
    names = ("fedlab", "pfl", "flwr") if workers == 1 else ("flwr",)
    return [
        name for name in names if PEERS and not run([PEERS, "-c", f"import {name}"], capture_output=True).returncode
    ]


def measured(setting: Setting, makers: dict[str, Callable[[], Any]], workers: int) -> list[dict[str, Any]]:
    """Rounds of all in turns, the first of each not counted; medians, and ratios round by round."""
    players = {name: make() for name, make in makers.items()}
    wall, cpu = ({name: list[float]() for name in makers} for _ in range(2))
    for turn in range(setting.rounds + 1):
        for name, play in players.items():
            start, start_cpu = perf_counter(), process_time()
            play()
            if turn:
                wall[name].append(1000 * (perf_counter() - start) / setting.cohort)
                cpu[name].append(1000 * (process_time() - start_cpu) / setting.cohort)
    for play in players.values():
        play.close()
    here = [name for name, play in players.items() if workers == 1 and not isinstance(play, Peer)]
    return [
        {"setting": setting.name, "runtime": name, "processes": workers, "ms a task": median(wall[name])}
        | {"of the bare loop": ratio(wall[name], wall["bare PyTorch loop"])}
        | {"cpu ms": median(cpu[name]) if name in here else "-"}
        | {"cpu of the bare loop": ratio(cpu[name], cpu["bare PyTorch loop"]) if name in here else "-"}
        for name in makers
    ]


def candidates(setting: Setting, workers: int) -> dict[str, Callable[[], Any]]:
    """What is compared: by name, how it is made ready."""
    found: dict[str, Callable[[], Any]] = {
        "bare PyTorch loop": lambda: Bare(setting, workers),
        "thinwire fedavg": lambda: Thinwire(setting, workers, method="fedavg"),
    }
    if setting is SMALL:
        found["thinwire fedpm"] = lambda: Thinwire(setting, workers, method="fedpm")
        found["thinwire fedzip"] = lambda: Thinwire(setting, workers, method="fedzip")
    if setting is SMALL and workers == 1:
        for method in ("fedavg", "fedpm"):
            found[f"thinwire {method}, together"] = lambda m=method: Thinwire(setting, 1, together=True, method=m)
    for name in peers(workers):
        found[TITLES[name]] = lambda n=name: Peer(setting, workers, n)
    return found


def main() -> None:
    """Both settings, with one and two processes."""
    torch.set_num_threads(1)
    rows = [
        row
        for setting in (SMALL, LENET)
        for workers in (1, 2)
        for row in measured(setting, candidates(setting, workers), workers)
    ]
    save("overhead", rows)
