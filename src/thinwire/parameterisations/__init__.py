"""Parameterisations: how trained tensors make a model's weights."""

from thinwire.parameterisations.dense import Dense
from thinwire.parameterisations.mask import Masked, frozen_weights, mask_layout

__all__ = ["Dense", "Masked", "frozen_weights", "mask_layout"]
