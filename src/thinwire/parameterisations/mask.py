"""Masked: frozen random weights, a trained probability of keeping each (FedPM).

Reference: Isik, Pase, Gündüz, Weissman, Zorzi, "Sparse Random Networks for Communication-Efficient Federated
Learning", ICLR 2023, arXiv 2209.15328.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import numpy as np
import torch
from torch import nn

from thinwire import rng
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.tensors import FlatModel

STRAIGHT_THROUGH = ("identity", "probability")


def mask_layout(layout: Layout) -> Layout:
    """Layout of the entries that get a mask: weights and biases; ConfigError without any.

    Norm parameters stay at their initial values.
    """
    masked = [entry for entry in layout if entry.role in ("weight", "bias")]
    if not masked:
        raise ConfigError("model", "no weights", "a model with weights to mask")
    return Layout.of({e.name: e.shape for e in masked}, {e.name: e.role for e in masked})


def _fan_in(entry: Entry, layout: Layout) -> int:
    """Inputs of one unit of the entry's layer; a bias takes that of the weight beside it."""
    if len(entry.shape) < 2:
        prefix = entry.name.rpartition(".")[0]
        beside = [e for e in layout if e.name.rpartition(".")[0] == prefix and len(e.shape) >= 2]
        entry = beside[0] if beside else entry
    return max(1, prod(entry.shape[1:]))


def frozen_weights(layout: Layout, seed: int, gain: float) -> np.ndarray:
    """Signed constants: w = ± gain / √fan_in, each sign one raw counter bit.  # (d,) float32, equal on all machines.

    Differs from the paper's code: biases take the fan-in of their layer; gain is √2 there in the text, e in the code.
    """
    signs = 1.0 - 2.0 * rng.raw_bits(seed, "frozen-signs", layout.size).astype(np.float32)
    for entry in layout:
        signs[entry.slice] *= np.float32(gain / sqrt(_fan_in(entry, layout)))
    return signs


class Masked:
    """W = w ∘ m with m ~ Bernoulli(θ), θ = sigmoid(s), a new m for every forward pass; s is trained.

    Straight through the sampling: dL/dθ = dL/dm (`identity`) or θ · dL/dm (`probability`, the authors' code).
    `sparsity` λ adds λ · mean(θ) to the loss, the proxy for the mask's entropy of regularised FedPM (arXiv 2309.10834).
    """

    def __init__(
        self, flat: FlatModel, frozen: np.ndarray, straight_through: str = "identity", sparsity: float = 0.0
    ) -> None:
        self.flat = flat
        device = flat.parameters.device
        self.frozen = torch.from_numpy(frozen).to(device)  # (d,)
        self.trained = torch.zeros_like(self.frozen)  # s (d,)
        self.trained.grad = torch.zeros_like(self.frozen)
        self.theta = torch.empty_like(self.frozen)
        self.straight_through, self.sparsity = straight_through, sparsity
        self.spans = _spans(flat.layout)
        self.source: np.random.Generator | torch.Generator = np.random.default_rng(0)

    @property
    def model(self) -> nn.Module:
        """The model whose weights are masked."""
        return self.flat.model

    def start(self, scores: np.ndarray, seed: int) -> None:
        """Begin from scores (d,) with sampling seeded anew."""
        self.trained.copy_(torch.from_numpy(scores))
        self.source = bit_source(seed, self.trained.device)

    def write(self, mask: torch.Tensor) -> None:
        """Make the model's weights w ∘ mask, for a mask or probabilities (d,)."""
        for weights, part in self.spans:
            torch.mul(self.frozen[part], mask[part], out=self.flat.parameters[weights])

    def push(self) -> None:
        """Sample a mask and make the weights from it."""
        torch.sigmoid(self.trained, out=self.theta)
        self.write(bernoulli(self.theta, self.source))
        self.flat.gradient.zero_()

    def pull(self) -> None:
        """dL/ds = (dL/dW ∘ w [∘ θ] + λ/d) ∘ θ ∘ (1 − θ)."""
        gradient = self.trained.grad
        assert gradient is not None
        for weights, part in self.spans:
            torch.mul(self.flat.gradient[weights], self.frozen[part], out=gradient[part])
        self.to_scores(gradient, self.theta)

    def to_scores(self, gradient: torch.Tensor, theta: torch.Tensor) -> None:
        """dL/ds from dL/dm, in place, for one client or a row a client.  # (..., d)."""
        if self.straight_through == "probability":
            gradient.mul_(theta)
        if self.sparsity:
            gradient.add_(self.sparsity / gradient.shape[-1])
        gradient.mul_(theta).addcmul_(gradient, theta, value=-1.0)


class MaskedStack:
    """The scores of many clients, a row each, every one with its own source of masks."""

    def __init__(self, masked: Masked, scores: Sequence[np.ndarray], seeds: Sequence[int]) -> None:
        self.masked, self.flat = masked, masked.flat
        device = masked.trained.device
        self.trained = torch.from_numpy(np.stack(scores)).to(device)  # (clients, d)
        self.trained.grad = torch.zeros_like(self.trained)
        self.theta = torch.empty_like(self.trained)
        self.sources = [bit_source(seed, device) for seed in seeds]
        self.weights = self.flat.parameters.detach().repeat(len(scores), 1)  # (clients, P)

    def push(self) -> torch.Tensor:
        """Sample a mask a client and make the weights from it.  # (clients, P)."""
        torch.sigmoid(self.trained, out=self.theta)
        masks = torch.stack([bernoulli(row, source) for row, source in zip(self.theta, self.sources, strict=True)])
        for weights, part in self.masked.spans:
            self.weights[:, weights] = self.masked.frozen[part] * masks[:, part]
        return self.weights

    def pull(self, gradient: torch.Tensor) -> None:
        """dL/ds from dL/dW (clients, P), as `Masked.pull`."""
        scores = self.trained.grad
        assert scores is not None
        for weights, part in self.masked.spans:
            torch.mul(gradient[:, weights], self.masked.frozen[part], out=scores[:, part])
        self.masked.to_scores(scores, self.theta)


def bit_source(seed: int, device: torch.device) -> np.random.Generator | torch.Generator:
    """Where a device's random bits come from: numpy's SFC64 for the processor (the fastest), torch's own elsewhere."""
    if device.type == "cpu":
        return np.random.Generator(np.random.SFC64(seed))
    return torch.Generator(device=device).manual_seed(seed)


def bernoulli(theta: torch.Tensor, source: np.random.Generator | torch.Generator) -> torch.Tensor:
    """A 0/1 draw for every probability (d,). On the processor θ is taken to 16 bits, a bias of at most 2⁻¹⁵."""
    if isinstance(source, torch.Generator):
        return torch.rand(theta.shape, generator=source, device=theta.device) < theta
    words = source.bit_generator.random_raw((theta.numel() + 3) // 4)
    draws = torch.from_numpy(words.view(np.int16))[: theta.numel()]
    return draws < theta.mul(65535.0).sub_(32768.0).to(torch.int16)


def _spans(layout: Layout) -> list[tuple[slice, slice]]:
    """Runs of masked entries: (where in the model's parameters, where in the mask)."""
    spans: list[tuple[slice, slice]] = []
    masked = 0
    for entry in layout:
        if entry.role not in ("weight", "bias"):
            continue
        start, stop = entry.offset, entry.offset + entry.size
        if spans and spans[-1][0].stop == start:
            spans[-1] = (slice(spans[-1][0].start, stop), slice(spans[-1][1].start, masked + entry.size))
        else:
            spans.append((slice(start, stop), slice(masked, masked + entry.size)))
        masked += entry.size
    return spans
