"""A local step of SSFL (density .1) against a dense step: the gradient ∘ mask is all that is added. SGD, one thread."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from benchmarks.measure import paired, ratio, save
from thinwire.methods.selection import places_of
from thinwire.methods.sparse import Kept, KeptDense
from thinwire.models import build
from thinwire.parameterisations import Dense
from thinwire.tensors import FlatModel
from thinwire.train import Local, Trainee, optimizer, token_loss

SHAPES = {"lenet": (1, 28, 28), "cnn-gn": (3, 32, 32)}


def step_of(trainee: Trainee, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of thinwire's training loop."""
    advance = optimizer(trainee.trained, Local(momentum=0.9), round=1)

    def step() -> None:
        trainee.push()
        token_loss(trainee.model(x), y).backward()
        trainee.pull()
        advance()

    return step


def masked(flat: FlatModel, density: float) -> Kept:
    """The model under a random mask of its weights."""
    places = places_of(flat.layout)
    mask = np.where(places, np.random.default_rng(0).random(flat.size) < density, 1).astype(np.uint8)
    kept = Kept(flat, mask)
    kept.write(kept.read())
    return kept


def main() -> None:
    """Milliseconds a step, and the ratio pair by pair."""
    torch.set_num_threads(1)
    rows = []
    for name, shape in SHAPES.items():
        for size in (16, 64):
            x, y = torch.randn(size, *shape), torch.randint(0, 10, (size,))
            flat, whole = (FlatModel(build(name, shape, 10)) for _ in range(2))
            steps = {"dense": step_of(Dense(whole), x, y), "sparse": step_of(KeptDense(masked(flat, 0.1)), x, y)}
            seconds = paired(steps, repeats=100, warm_up=5)
            rows.append(
                {"model": name, "parameters": flat.size, "batch": size}
                | {f"{key} ms": 1000 * median(values) for key, values in seconds.items()}
                | {"sparse / dense": ratio(seconds["sparse"], seconds["dense"])}
            )
    save("sparse_step", rows)
