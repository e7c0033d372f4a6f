"""The one local training loop and the one evaluation loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from thinwire.errors import TrainingError
from thinwire.tensors import FlatModel


@dataclass(frozen=True)
class Local:
    """How a client trains: `lr` is that of round 1, multiplied by `lr_decay` every round after it.

    clip: the norm to which a longer gradient of the loss is cut back before every step; 0: none is.
    """

    epochs: int = 1
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_decay: float = 1.0
    clip: float = 0.0

    def rate(self, round: int) -> float:
        """Learning rate of a round, counted from 1."""
        return self.lr * self.lr_decay ** (round - 1)


class Trainee(Protocol):
    """What the loop trains: one flat trained tensor that makes the model's weights."""

    trained: torch.Tensor  # (d,), its .grad set by `pull`

    @property
    def model(self) -> nn.Module:
        """The model whose weights are made."""

    def push(self) -> None:
        """Make the model's weights from the trained tensor, before a forward pass."""

    def pull(self) -> None:
        """Make the trained tensor's gradient from the weights' gradients, after a backward pass."""


@dataclass(frozen=True)
class Correction:
    """What an algorithm adds to the gradient of every step: offset + strength · (w − anchor), each (p,) or None.

    p may be less than the trained tensor's size: what stands behind is left alone.
    """

    offset: torch.Tensor | None = None
    anchor: torch.Tensor | None = None
    strength: float = 0.0

    def add(self, trained: torch.Tensor) -> None:
        """Add it to the gradient of the trained tensor."""
        gradient = trained.grad
        assert gradient is not None
        if self.offset is not None:
            gradient[: len(self.offset)].add_(self.offset)
        if self.anchor is not None:
            part = slice(len(self.anchor))
            gradient[part].add_(trained.detach()[part] - self.anchor, alpha=self.strength)


def token_loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy; logits (batch, ..., classes), y (batch, ...)."""
    if logits.dim() > 2:
        logits, y = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
    return cross_entropy(logits, y)


def optimizer(trained: torch.Tensor, local: Local, round: int) -> Callable[[], object]:
    """The step of a fresh optimiser over one flat tensor and its gradient, a tensor that stays the same.

    Bit for bit that of torch.optim.SGD and torch.optim.Adam (fused), without the bookkeeping of their classes, which
    costs a small client more than its arithmetic.
    """
    gradient, rate = trained.grad, local.rate(round)
    assert gradient is not None
    plain: dict[str, Any] = {"lr": rate, "weight_decay": local.weight_decay, "maximize": False, "fused": True}
    if local.optimizer == "adam":
        mean, square, steps = (
            torch.zeros_like(trained),
            torch.zeros_like(trained),
            torch.zeros((), device=trained.device),
        )
        moments: tuple[Any, ...] = ([mean], [square], [], [steps])
        return partial(adam, [trained], [gradient], *moments, amsgrad=False, beta1=0.9, beta2=0.999, eps=1e-8, **plain)
    if local.momentum or local.weight_decay:
        return partial(
            sgd, [trained], [gradient], [None], momentum=local.momentum, dampening=0.0, nesterov=False, **plain
        )
    return partial(trained.add_, gradient, alpha=-rate)


def batch_count(count: int, local: Local) -> int:
    """Mini-batches of an epoch over so many samples: the last may be short, but a single sample joins the one before.

    A batch of one has no variance, which BatchNorm needs.
    """
    whole, rest = divmod(count, local.batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def batches(count: int, local: Local, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Index arrays of all mini-batches: every epoch a new order, split as `batch_count` says."""
    ends = [local.batch_size * number for number in range(1, batch_count(count, local))]
    for _ in range(local.epochs):
        yield from np.split(rng.permutation(count), ends) if count else ()


def fit(
    trainee: Trainee,
    x: np.ndarray,
    y: np.ndarray,
    local: Local,
    round: int,
    rng: np.random.Generator,
    correction: Correction | None = None,
) -> dict[str, float]:
    """Train in place on (n, ...) inputs and (n, ...) labels. -> mean loss over the steps, number of steps.

    The model stays in the mode that it is in: `FlatModel` knows which layers train and which were put in evaluation
    mode for good. Weights that a parameterisation composes are composed once a step. TrainingError when the loss is
    not finite.
    """
    device, model = trainee.trained.device, trainee.model
    inputs, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    steps = 0
    total = first = torch.zeros((), device=device)
    step = optimizer(trainee.trained, local, round)
    for index in batches(len(y), local, rng):
        chosen = torch.from_numpy(index).to(device)
        trainee.push()
        with parametrize.cached():
            loss = token_loss(model(inputs.index_select(0, chosen)), labels.index_select(0, chosen))
        loss.backward()
        trainee.pull()
        if local.clip:
            nn.utils.clip_grad_norm_(trainee.trained, local.clip)
        if correction:
            correction.add(trainee.trained)
        step()
        total = total + loss.detach() if steps else loss.detach()
        first = first if steps else total
        steps += 1
    mean = float(total) / max(steps, 1)
    if not np.isfinite(mean):
        raise not_finite(mean, float(first), round, local)
    return {"loss": mean, "steps": steps}


def not_finite(mean: float, first: float, round: int, local: Local) -> TrainingError:
    """The error of a mean loss that is not finite; `first`: the loss before any step, of the model as it came.

    Where that one is not finite either, this round's learning rate is not the cause.
    """
    lower = f"lower the learning rate (lr = {local.rate(round):g})"
    if np.isfinite(first):
        return TrainingError(f"loss became {mean} in round {round}: {lower}")
    said = f"the loss of the model as it was received is {first} in round {round}, before the first step"
    return TrainingError(f"{said}: check the samples" + (f", or {lower} or the server's" if round > 1 else ""))


def obstacle_alone(model: nn.Module, x: np.ndarray, y: np.ndarray) -> str:
    """Why a model cannot train on a batch of one sample (1, ...), as BatchNorm cannot; empty if it can."""
    alone = FlatModel(model).model  # in the mode that it trains in
    try:
        token_loss(alone(torch.from_numpy(x)), torch.from_numpy(y))
    except Exception as error:  # whatever a model of one's own raises
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""


@torch.no_grad()
@parametrize.cached()
def evaluate(model: nn.Module, x: np.ndarray, y: np.ndarray, batch_size: int = 200) -> dict[str, float]:
    """Accuracy in 0 … 1 and mean cross-entropy over (n, ...) inputs and labels."""
    model.eval()
    device = next(iter(model.parameters())).device
    correct, loss = 0, 0.0
    for start in range(0, len(y), batch_size):
        inputs = torch.from_numpy(x[start : start + batch_size]).to(device)
        labels = torch.from_numpy(y[start : start + batch_size]).to(device)
        logits = model(inputs)
        correct += int((logits.argmax(-1) == labels).sum())
        loss += float(token_loss(logits, labels)) * len(labels)
    return {"accuracy": correct / max(y.size, 1), "loss": loss / max(len(y), 1)}
