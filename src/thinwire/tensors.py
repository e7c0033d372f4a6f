"""Torch meets numpy here and nowhere else: a model whose parameters are views of one flat vector."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.layout import Layout

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)


def norm_layers(model: nn.Module) -> set[str]:
    """Names of the normalisation layers, by their type."""
    return {name for name, module in model.named_modules() if isinstance(module, _NORMS)}


def _tensors(model: nn.Module, personal: Collection[str] = ()) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """(name, tensor, is it a parameter) in layout order: shared parameters, then buffers that belong to the state."""
    state = model.state_dict(keep_vars=True).keys()
    yield from ((name, tensor, True) for name, tensor in model.named_parameters() if name not in personal)
    yield from ((name, tensor, False) for name, tensor in model.named_buffers() if name in state)


def layout_of(model: nn.Module, personal: Collection[str] = ()) -> Layout:
    """Layout of a model's parameters (tied ones once), then its persistent buffers; ConfigError names a bad one.

    Parameters named in `personal` stay on the client and are left out.
    """
    norms, shapes, roles = norm_layers(model), {}, {}
    for name, tensor, is_parameter in _tensors(model, personal):
        allowed = "float32 for parameters; float32 or whole numbers for buffers (register others as not persistent)"
        whole = tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
        if tensor.dtype != torch.float32 and (is_parameter or not whole):
            raise ConfigError(f"model tensor {name}", str(tensor.dtype), allowed)
        shapes[name] = tuple(tensor.shape)
        if not is_parameter:
            roles[name] = "buffer"
        elif name.rpartition(".")[0] in norms:
            roles[name] = "norm"
    return Layout.of(shapes, roles)


class FlatModel:
    """A model whose parameters are views of `parameters` (P,) and whose gradients are views of `gradient` (P,).

    One optimiser step on one tensor, one copy to read or write the whole model: what makes a small client cheap.
    The first `shared` parameters and the buffers make up the layout, the vector that travels; the parameters named in
    `personal` stand behind them and never leave. Buffers are copied; whole-number buffers travel as float32 and are
    rounded when they come back.
    """

    def __init__(self, model: nn.Module, device: str = "cpu", personal: Collection[str] = ()) -> None:
        self.model = model.to(device).train()
        self.layout = layout_of(model, personal)
        self.size = sum(p.numel() for p in model.parameters())  # P
        self.parameters = torch.empty(self.size, device=device)
        self.gradient = torch.zeros(self.size, device=device)
        self._buffers = [(name, tensor) for name, tensor, is_parameter in _tensors(model) if not is_parameter]
        ordered = sorted(model.named_parameters(), key=lambda item: item[0] in personal)
        self.shared = sum(parameter.numel() for name, parameter in ordered if name not in personal)
        self.named: list[tuple[str, slice, torch.Size]] = []  # where every parameter is, its name and shape
        self._view(ordered)

    def _view(self, ordered: list[tuple[str, nn.Parameter]]) -> None:
        """Make the parameters, in this order, views of the flat tensors."""
        offset = 0
        for name, parameter in ordered:
            span = slice(offset, offset + parameter.numel())
            self.named.append((name, span, parameter.shape))
            self.parameters[span] = parameter.data.reshape(-1)
            parameter.data = self.parameters[span].view(parameter.shape)
            parameter.grad = self.gradient[span].view(parameter.shape)
            offset += parameter.numel()

    def read(self) -> np.ndarray:
        """What travels of the model as one float32 vector (n,), a copy, in layout order."""
        if not self._buffers:
            return self.parameters[: self.shared].to("cpu", copy=True).numpy()
        buffers = (tensor.detach().reshape(-1).float() for _, tensor in self._buffers)
        return torch.cat([self.parameters[: self.shared].detach(), *buffers]).cpu().numpy()

    def write(self, vector: np.ndarray) -> None:
        """Make the model hold a float32 vector (n,) of what travels."""
        source = torch.from_numpy(np.ascontiguousarray(vector))
        self.parameters[: self.shared].copy_(source[: self.shared])
        offset = self.shared
        for _, buffer in self._buffers:
            values = source[offset : offset + buffer.numel()].view(buffer.shape)
            buffer.copy_(values if buffer.is_floating_point() else values.round())
            offset += buffer.numel()

    def read_personal(self) -> np.ndarray:
        """What stays on the client as one float32 vector (P − shared,), a copy."""
        return self.parameters[self.shared :].detach().clone().cpu().numpy()

    def write_personal(self, vector: np.ndarray) -> None:
        """Make the model hold a float32 vector (P − shared,) of what stays on the client."""
        self.parameters[self.shared :].copy_(torch.from_numpy(np.ascontiguousarray(vector)))
