"""The Hadamard product of two matrix products as one autograd function, forward and backward written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Hadamard(torch.autograd.Function):
    """W = f(X1 B1) ∘ (f(X2 B2) + shift), f the identity or tanh.  # (O, R), (R, N), (O, R), (R, N) -> (O, N).

    With G = dL/dW, W1 = f(X1 B1), W2 = f(X2 B2) + shift and G1 = G ∘ W2 ∘ f′, G2 = G ∘ W1 ∘ f′:
    dX1 = G1 B1ᵀ, dB1 = X1ᵀ G1, dX2 = G2 B2ᵀ, dB2 = X2ᵀ G2.
    `keep` holds W1 and W2 (2 O N numbers) for the backward pass; without it they are made again there.
    -> (W,), with `keep` (W, W1, W2): torch.func, which clients that train together need, saves nothing but what is
    given and returned.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x1: Tensor, b1: Tensor, x2: Tensor, b2: Tensor, shift: float, tanh: bool, keep: bool
    ) -> tuple[Tensor, ...]:
        """W (O, N), and what is kept."""
        w1, w2 = _halves(x1, b1, x2, b2, shift, tanh)
        return (w1 * w2, w1, w2) if keep else (w1.mul_(w2),)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """What the backward pass needs."""
        *factors, ctx.shift, ctx.tanh, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*factors, *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the four factors for G (O, N)."""
        x1, b1, x2, b2, *kept = ctx.saved_tensors
        w1, w2 = kept or _halves(x1, b1, x2, b2, ctx.shift, ctx.tanh)
        g1, g2 = g * w2, g * w1
        if ctx.tanh:
            g1, g2 = g1 * (1 - w1.square()), g2 * (1 - (w2 - ctx.shift).square())
        return g1 @ b1.T, x1.T @ g1, g2 @ b2.T, x2.T @ g2, None, None, None


def _halves(x1: Tensor, b1: Tensor, x2: Tensor, b2: Tensor, shift: float, tanh: bool) -> tuple[Tensor, Tensor]:
    w1, w2 = x1 @ b1, x2 @ b2
    if tanh:
        w1.tanh_(), w2.tanh_()
    return w1, (w2.add_(shift) if shift else w2)


def spread(y: Tensor, core: Tensor | None = None) -> Tensor:
    """B (R, I·K) of X B = T ×1 X ×2 Y: the core with its second axis taken to the inputs; Yᵀ where there is no core.

    The cheap contraction comes first, R² I K; the costly one, O R I K, is then a single matrix product that leaves the
    weight in its own memory order.  # y (I, R), core (R, R, *k)
    """
    return y.T if core is None else torch.matmul(y, core.flatten(2)).flatten(1)
