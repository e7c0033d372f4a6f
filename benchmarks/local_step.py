"""A local step of FedPM against a dense step with the same optimiser (Adam), batch 128, one thread."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.measure import paired, ratio, save
from thinwire.models import build
from thinwire.parameterisations import Dense, Masked, frozen_weights, mask_layout
from thinwire.tensors import FlatModel
from thinwire.train import Local, Trainee, optimizer

SHAPES = {"mlp": (1, 8, 8), "lenet": (1, 28, 28), "conv4": (1, 28, 28)}
ADAM = Local(optimizer="adam", lr=0.1, batch_size=128)


def step_of(trainee: Trainee, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of thinwire's training loop."""
    advance = optimizer(trainee.trained, ADAM, round=1)

    def step() -> None:
        trainee.push()
        cross_entropy(trainee.model(x), y).backward()
        trainee.pull()
        advance()

    return step


def plain_step(name: str, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """The bare PyTorch loop: a model and torch.optim.Adam with its defaults."""
    model = build(name, SHAPES[name], 10)
    solver = torch.optim.Adam(model.parameters(), lr=0.1)

    def step() -> None:
        solver.zero_grad()
        cross_entropy(model(x), y).backward()
        solver.step()

    return step


def main() -> None:
    """Milliseconds a step, and the ratio pair by pair."""
    torch.set_num_threads(1)
    rows = []
    for name, shape in SHAPES.items():
        x, y = torch.randn(128, *shape), torch.randint(0, 10, (128,))
        flat = FlatModel(build(name, shape, 10))
        masked = Masked(flat, frozen_weights(mask_layout(flat.layout), 0, 2**0.5))
        masked.start(np.zeros(flat.size, np.float32), seed=0)
        candidates = {
            "fedpm": step_of(masked, x, y),
            "dense": step_of(Dense(FlatModel(build(name, shape, 10))), x, y),
            "torch": plain_step(name, x, y),
        }
        seconds = paired(candidates, repeats=200 if name == "mlp" else 25, warm_up=3)
        rows.append(
            {"model": name, "parameters": flat.size}
            | {f"{key} ms": 1000 * median(values) for key, values in seconds.items()}
            | {"fedpm / dense": ratio(seconds["fedpm"], seconds["dense"])}
            | {"fedpm / torch": ratio(seconds["fedpm"], seconds["torch"])}
        )
    save("local_step", rows)
