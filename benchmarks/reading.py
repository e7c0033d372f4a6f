"""The run's own part of a client-task, with frames decoded by the run and by the two processes that train.

FedAvg (or FedPM) on MNIST, 10 images a client, 40 clients a round, the uplink named; rounds of both ways in turns, the
first of each not counted, neither evaluation nor checkpoint in them. `cpu ms` is processor time of the run's process a
client: what bounds the number of workers that it can feed. `wall ms` is a round over its clients, on as many
processors as there are.
"""

from __future__ import annotations

from contextlib import closing
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from benchmarks.measure import ratio, save
from thinwire.api import settings
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import parse
from thinwire.runtime.progress import Progress
from thinwire.runtime.recipe import clients_of
from thinwire.runtime.simulate import Simulation
from thinwire.runtime.workers import Elsewhere, Workers

COHORT, IMAGES, ROUNDS, WORKERS = 40, 10, 9, 2
MODELS = ("linear", "lenet")
METHODS: dict[str, dict[str, Any]] = {
    "stc 1/100": {"method": "fedavg", "uplink": {"id": "stc", "keep": 0.01}},
    "fedzip 1/20": {"method": "fedavg", "uplink": {"id": "fedzip", "variant": "pinned", "keep": 0.05}},
    "qsgd": {"method": "fedavg", "uplink": {"id": "qsgd"}},
    "thin, error 0.1": {"method": "fedavg", "uplink": {"id": "thin", "nmse": 0.1}},
    "fedpm": {"method": "fedpm"},
}


class Rounds:
    """Rounds whose frames are decoded here or there."""

    def __init__(self, elsewhere: bool, **options: Any) -> None:
        shape = {"data": "mnist", "partition": f"drawn:{IMAGES}", "clients": 1000, "batch_size": IMAGES}
        assembly = runs.assemble(parse(settings(**{**shape, "fraction": COHORT / 1000, **options})))
        self.pool = Workers.forked(clients_of(assembly), WORKERS)
        reader = Elsewhere(assembly.method, self.pool) if elsewhere else None
        self.simulation = Simulation(assembly.method, self.pool, assembly.clients, 0, reader=reader)
        self.progress = Progress(assembly.method.init())
        self.wall, self.cpu = list[float](), list[float]()

    def __call__(self) -> None:
        """A round."""
        start, start_cpu = perf_counter(), process_time()
        self.progress, _ = self.simulation.play(self.progress)
        self.wall.append(1000 * (perf_counter() - start) / COHORT)
        self.cpu.append(1000 * (process_time() - start_cpu) / COHORT)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


def measured(model: str, name: str) -> dict[str, Any]:
    """Medians of both ways, and the ratio of the wall times round by round."""
    options = METHODS[name] | {"model": model}
    with closing(Rounds(False, **options)) as here, closing(Rounds(True, **options)) as there:
        for _ in range(ROUNDS + 1):
            here()
            there()
    own, others = (median(rounds.cpu[1:]) for rounds in (here, there))
    wall = [median(rounds.wall[1:]) for rounds in (here, there)]
    return {
        "model": model, "update": name, "cpu ms, here": own, "cpu ms, by the workers": others,
        "wall ms, here": wall[0], "wall ms, by the workers": wall[1],
        "wall ratio": ratio(there.wall[1:], here.wall[1:]),
    }  # fmt: skip


def main() -> None:
    """All models and updates."""
    torch.set_num_threads(1)
    save("reading", [measured(model, name) for model in MODELS for name in METHODS])
