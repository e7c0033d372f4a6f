"""Dense: the weights themselves are trained."""

from __future__ import annotations

from torch import nn

from thinwire.tensors import FlatModel


class Dense:
    """W = the trained tensor: a trainee whose push and pull cost nothing but clearing the gradient."""

    def __init__(self, flat: FlatModel) -> None:
        self.flat = flat
        self.trained = flat.parameters  # (P,)
        self.trained.grad = flat.gradient

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.flat.model

    def push(self) -> None:
        """Clear the gradient; the weights are in place."""
        self.flat.gradient.zero_()

    def pull(self) -> None:
        """Nothing: the gradient of the weights is the trained tensor's gradient."""
