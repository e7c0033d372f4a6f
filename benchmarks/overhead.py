"""Overhead a client-task: 1,000 clients of 10 MNIST images, 100 a round, linear 784-10, one epoch, all frames coded.

The bare loop trains the same clients on the same images with plain PyTorch in one process and makes no byte.
"""

from __future__ import annotations

from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.measure import save
from thinwire import data as datasets
from thinwire.api import settings
from thinwire.data import Dataset
from thinwire.models import build
from thinwire.runtime import run as runs
from thinwire.runtime.client import Clients
from thinwire.runtime.experiment import parse
from thinwire.runtime.pool import open_pool
from thinwire.runtime.simulate import Progress, Simulation

CLIENTS, IMAGES, COHORT, ROUNDS = 1_000, 10, 100, 8


@cache
def few_images() -> Dataset:
    """The first 10,000 training images of MNIST, 1,000 test images."""
    full = datasets.load("mnist")
    train, test = full.train.take(np.arange(CLIENTS * IMAGES)), full.test.take(np.arange(1000))
    return Dataset("mnist-10000", train, test, full.classes)


def thinwire_task(method: str, workers: int) -> dict[str, Any]:
    """Milliseconds a client-task, evaluation and checkpoint left out: median over rounds, the first not counted."""
    options = {"method": method, "data": "benchmarks.overhead:few_images", "model": "linear", "batch_size": IMAGES}
    experiment = parse(settings(**options, clients=CLIENTS, fraction=COHORT / CLIENTS, rounds=ROUNDS))
    assembly = runs.assemble(experiment)
    torch.set_num_threads(1)
    pool = open_pool(Clients(assembly.method, assembly.client_data, assembly.run_id), workers)
    simulation, progress = Simulation(assembly.method, pool, assembly.clients, 0), Progress(assembly.method.init())
    times, stages = [], dict[str, float]()
    for _ in range(ROUNDS):
        start = perf_counter()
        progress, work = simulation.play(progress)
        times.append((perf_counter() - start) / COHORT)
        stages = work.seconds
    pool.close()
    parts = {stage: 1000 * seconds / COHORT for stage, seconds in stages.items()}
    return {"runtime": f"thinwire {method}", "workers": workers, "ms a task": 1000 * median(times[1:])} | {
        "ms by stage": " ".join(f"{stage} {value:.3f}" for stage, value in parts.items())
    }


def bare_task() -> dict[str, Any]:
    """Milliseconds a client in a plain PyTorch loop with a running mean of the weights."""
    torch.set_num_threads(1)
    dataset = few_images()
    x, y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
    model, times = build("linear", dataset.shape, dataset.classes), []
    for _ in range(ROUNDS):
        start = perf_counter()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        mean = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for client in range(COHORT):
            model.load_state_dict(state)
            solver = torch.optim.SGD(model.parameters(), lr=0.05)
            part = slice(client * IMAGES, (client + 1) * IMAGES)
            cross_entropy(model(x[part]), y[part]).backward()
            solver.step()
            solver.zero_grad()
            for name, tensor in model.state_dict().items():
                mean[name] += tensor / COHORT
        model.load_state_dict(mean)
        times.append((perf_counter() - start) / COHORT)
    return {"runtime": "bare PyTorch loop", "workers": 1, "ms a task": 1000 * median(times[1:]), "ms by stage": "-"}


def main() -> None:
    """thinwire with one and two processes beside the bare loop."""
    rows = [thinwire_task(method, workers) for method in ("fedavg", "fedpm") for workers in (1, 2)]
    save("overhead", [bare_task(), *rows])
