"""Parametrisations of one weight: the factors that are trained, and how they make the weight.

Each is a module for torch.nn.utils.parametrize: the layer keeps its class, its weight becomes a property, and the
factors are `parametrizations.<tensor>.original0`, `original1`, ….
Source: Hyeon-Woo, Ye-Bin, Oh: "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
ICLR 2022, arXiv 2108.06098. Initial values differ from the paper's ("He" only): He's variance for each factor would
leave W with a standard deviation of 2e-4 in a 256 → 256 3×3 convolution, where 0.029 trains. Here the factors share
the variance evenly so that Var(W) is that of the dense layer.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from thinwire.errors import ThinwireError
from thinwire.parameterisations.jacobian import Correction
from thinwire.parameterisations.product import Hadamard, spread
from thinwire.parameterisations.ranks import Shape, axes, count, pair


class Factors(nn.Module):
    """Factors of `shapes` that make a weight of `shape`; those at the places in `personal` stay on the client."""

    personal: tuple[int, ...] = ()
    order: tuple[str, ...] = ()  # of the layer's parameters before, which `compose` restores

    def __init__(self, shape: Shape, rank: int, shapes: list[Shape], deviations: list[float]) -> None:
        super().__init__()
        self.shape, self.rank, self.shapes, self.deviations = shape, rank, shapes, deviations
        self.size = count(shapes)
        self.drawn = False

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Fresh factors, drawn from torch's global generator on the CPU: a weight's values cannot be kept."""
        if self.drawn:
            raise ThinwireError("a factored weight cannot be assigned: set its factors, or compose the model first")
        self.drawn = True
        drawn = zip(self.shapes, self.deviations, strict=True)
        return tuple((torch.randn(s, dtype=weight.dtype) * deviation).to(weight.device) for s, deviation in drawn)

    def extra_repr(self) -> str:
        """Shape and rank, for print(model)."""
        return f"{'×'.join(map(str, self.shape))}, rank={self.rank}"


def even(shapes: list[Shape], rank: int, variance: float) -> list[float]:
    """One standard deviation for all factors of a product, so that its entries have `variance`.

    X Yᵀ: R v² = Var; T ×1 X ×2 Y: R² v³ = Var, v the variance of every factor.
    """
    power = len(shapes)
    return [sqrt((variance / rank ** (power - 1)) ** (1 / power))] * power


class HadamardFactors(Factors):
    """W = f(W1) ∘ (f(W2) + shift), W_i = X_i Y_iᵀ or T_i ×1 X_i ×2 Y_i; factors x1, y1[, t1], x2, y2[, t2].

    `variances` are those of W1 and W2 before f. `jacobian` λ and `jacobian_rate` η: see Correction.
    """

    def __init__(
        self,
        shape: Shape,
        rank: int,
        variances: tuple[float, float],
        shift: float = 0.0,
        tanh: bool = False,
        keep: bool = True,
        jacobian: float = 0.0,
        jacobian_rate: float = 0.1,
    ) -> None:
        half = pair(shape, rank)
        super().__init__(shape, rank, half * 2, [d for v in variances for d in even(half, rank, v)])
        self.shift, self.tanh, self.keep = shift, tanh, keep
        self.jacobian, self.jacobian_rate = jacobian, jacobian_rate

    def forward(self, *factors: Tensor) -> Tensor:
        """The weight.  # x1 (O, R), y1 (I, R)[, t1 (R, R, *k)], x2, y2[, t2] -> (O, I, *k)."""
        weight = self.make(*factors)
        if self.jacobian:
            return Correction.apply(weight, self.make, self.jacobian, self.jacobian_rate, *factors)
        return weight

    def make(self, *factors: Tensor) -> Tensor:
        """The weight without the correction of its gradient."""
        half = len(factors) // 2
        (x1, y1, *t1), (x2, y2, *t2) = factors[:half], factors[half:]
        b1, b2 = spread(y1, *t1), spread(y2, *t2)
        weight: Tensor = Hadamard.apply(x1, b1, x2, b2, self.shift, self.tanh, self.keep)[0]
        return weight.view(self.shape)


class PersonalFactors(HadamardFactors):
    """W = W1 ∘ (W2 + 1): the second half of the factors stays on the client."""

    def __init__(self, shape: Shape, rank: int, variances: tuple[float, float], keep: bool) -> None:
        super().__init__(shape, rank, variances, shift=1.0, keep=keep)
        half = len(self.shapes) // 2
        self.personal = tuple(range(half, 2 * half))


class TuckerFactors(Factors):
    """W = T ×1 X ×2 Y with one rank, X Yᵀ for a matrix; factors x, y[, t]."""

    def __init__(self, shape: Shape, rank: int, variance: float) -> None:
        shapes = pair(shape, rank)
        super().__init__(shape, rank, shapes, even(shapes, rank, variance))

    def forward(self, x: Tensor, y: Tensor, core: Tensor | None = None) -> Tensor:
        """The weight.  # (O, R), (I, R)[, (R, R, *k)] -> (O, I, *k)."""
        return (x @ spread(y, core)).view(self.shape)


class LowRankFactors(Factors):
    """W = X Yᵀ of the weight read as a matrix (O, I·K); factors x, y."""

    def __init__(self, shape: Shape, rank: int, variance: float) -> None:
        outputs, inputs, places = axes(shape)
        shapes = pair((outputs, inputs * places), rank)
        super().__init__(shape, rank, shapes, even(shapes, rank, variance))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The weight.  # (O, R), (I·K, R) -> (O, I, *k)."""
        return (x @ y.T).view(self.shape)
