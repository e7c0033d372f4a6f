"""What the models of the zoo are built from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

Shape = tuple[int, ...]
WIDTH = 16


class Entry(NamedTuple):
    """A model of the zoo.

    right: what training it in a plain way must come to: `same`, `refused`, or `either`. Where it is `refused`, every
    other way must refuse the model, too. kept: names of the state that no run may change, not by one bit. grows: names
    of counters that every run must raise.
    """

    build: Callable[[Shape, int], nn.Module]
    data: str = "vectors"
    right: str = "same"
    kept: tuple[str, ...] = ()
    grows: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """What a run's setting `model` is."""
        return f"{self.build.__module__}:{self.build.__qualname__}"


class Net(nn.Module):
    """Two linear layers; what stands between them is `hidden`, which most models of the zoo override."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(shape[0], WIDTH), nn.Linear(WIDTH, classes)

    def hidden(self, h: torch.Tensor) -> torch.Tensor:  # (n, 16) -> (n, 16)
        return torch.relu(h)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.hidden(self.a(x)))


def net(shape: Shape, classes: int, *middle: nn.Module) -> nn.Sequential:
    """A network over vectors with these layers between its first and its last."""
    return nn.Sequential(nn.Linear(shape[0], WIDTH), *middle, nn.Linear(WIDTH, classes))


def image(classes: int, *middle: nn.Module) -> nn.Sequential:
    """A network over images (1, 8, 8) with these layers, which keep 4 channels of 8 × 8, in its midst."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(256, classes))
