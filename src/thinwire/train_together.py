"""The training loop of many clients at once: their weights stacked, every step one call of torch.func's vmap.

The same batches in the same order, the same optimiser, the same draws as `fit` client by client; sums run in another
order, so that a trained vector may differ from that of `fit` in its last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from thinwire.tensors import FlatModel
from thinwire.train import Local, batches, not_finite, optimizer, token_loss

Weights = dict[str, torch.Tensor]


class Stack(Protocol):
    """What is trained: a row a client, as `Trainee` of one client."""

    flat: FlatModel
    trained: torch.Tensor  # (clients, d), its .grad set by `pull`

    def push(self) -> torch.Tensor:
        """The model's weights, from the trained rows.  # (clients, P)."""

    def pull(self, gradient: torch.Tensor) -> None:
        """Make the trained rows' gradient from that of the weights (clients, P)."""


class DenseStack:
    """W = the trained rows."""

    def __init__(self, flat: FlatModel, starts: Sequence[torch.Tensor]) -> None:
        self.flat, self.trained = flat, torch.stack(list(starts))
        self.trained.grad = torch.zeros_like(self.trained)

    def push(self) -> torch.Tensor:
        """The rows themselves."""
        return self.trained

    def pull(self, gradient: torch.Tensor) -> None:
        """The gradient itself."""
        assert self.trained.grad is not None
        self.trained.grad.copy_(gradient)


def fit_together(
    stack: Stack,
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    local: Local,
    round: int,
    draws: Sequence[np.random.Generator],
) -> list[dict[str, float]]:
    """Train all rows in place, each on its own (n, ...) inputs and labels, n the same for all. -> metrics a client.

    TrainingError when a loss is not finite; RuntimeError where vmap cannot run the model (see `obstacle`).
    """
    device = stack.trained.device
    inputs, labels = torch.from_numpy(np.stack(x)).to(device), torch.from_numpy(np.stack(y)).to(device)
    rows = torch.arange(len(x), device=device)[:, None]
    total, first, steps = torch.zeros(len(x), device=device), torch.zeros(len(x), device=device), 0
    step = _optimizer(stack.trained, local, round)
    gradients = _gradients(stack.flat)
    for index in zip(*(batches(len(y[0]), local, draw) for draw in draws), strict=True):
        chosen = rows, torch.from_numpy(np.stack(index)).to(device)  # (clients, batch)
        gradient, losses = gradients(stack.push(), inputs[chosen], labels[chosen])
        stack.pull(gradient)
        if local.clip:
            _clip(stack.trained.grad, local.clip)
        step()
        first = first if steps else losses
        total += losses
        steps += 1
    means = (total.cpu().numpy() / max(steps, 1)).tolist()
    if bad := [row for row, mean in enumerate(means) if not np.isfinite(mean)]:
        raise not_finite(means[bad[0]], float(first[bad[0]]), round, local)
    return [{"loss": mean, "steps": steps} for mean in means]


def _optimizer(trained: torch.Tensor, local: Local, round: int) -> Callable[[], object]:
    """The step of one optimiser over all rows: its arithmetic is entry by entry."""
    every = trained.view(-1)
    assert trained.grad is not None
    every.grad = trained.grad.view(-1)
    return optimizer(every, local, round)


def _gradients(
    flat: FlatModel,
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Weights (clients, P), inputs and labels (clients, batch, ...) -> gradients (clients, P), losses (clients,)."""

    def loss(weights: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return token_loss(functional_call(flat.model, weights, (x,)), y)

    each = vmap(grad_and_value(loss))

    def every(weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        split = {name: weights[:, span].view(-1, *shape) for name, span, shape in flat.named}
        found, losses = each(split, x, y)
        return torch.cat([found[name].flatten(1) for name in split], dim=1), losses

    return every


def _clip(gradient: torch.Tensor | None, longest: float) -> None:
    """Cut every row back to the norm `longest`, as torch's clip_grad_norm_."""
    assert gradient is not None
    norms = gradient.norm(dim=1, keepdim=True)
    gradient.mul_((longest / (norms + 1e-6)).clamp(max=1.0))


def obstacle(model: nn.Module, x: np.ndarray, y: np.ndarray) -> str:
    """Why clients cannot train this model together, found out by a step of two on samples (2, ...); empty if they can.

    Running statistics of a batch, dropout, recurrent layers and branches on values are such reasons.
    """
    flat, number = FlatModel(model), 2
    if flat.buffers or flat.own_buffers:
        return "the model has buffers"
    try:
        samples = (torch.from_numpy(np.stack([part] * number)) for part in (x, y))
        _gradients(flat)(flat.parameters.detach().repeat(number, 1), *samples)
    except Exception as error:  # whatever a model of one's own raises
        return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
    return ""
