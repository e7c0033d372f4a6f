"""Torch meets numpy here and nowhere else: a model whose trained parameters are views of one flat vector."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from thinwire.buffers import Buffers, buffers_of, bytes_of, places
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.purity import Hidden

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)


def norm_layers(model: nn.Module) -> set[str]:
    """Names of the normalisation layers, by their type."""
    return {name for name, module in model.named_modules() if isinstance(module, _NORMS)}


def check_maskable(model: nn.Module, method: str) -> None:
    """ConfigError names a layer under weight_norm: a row of its direction that a mask makes 0 has no norm."""
    for name, module in model.named_modules():
        hooks = (type(hook).__name__ for hook in module._forward_pre_hooks.values())
        if type(module).__name__ == "_WeightNorm" or "WeightNorm" in hooks:
            layer = name.partition(".parametrizations")[0] or type(model).__name__
            raise ConfigError(f"model layer {layer}", "weight_norm", f"plain weights under {method}: it masks them")


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that are trained: all but those with `requires_grad = False`; tied ones once."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def frozen(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters with `requires_grad = False`: both ends have them, they never travel and never change."""
    return [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]


def _owned(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Every parameter at each place that it has: its name there, the module and its name in it."""
    for path, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{path}.{key}" if path else key, module, key, parameter


def layout_of(model: nn.Module, personal: Collection[str] = ()) -> Layout:
    """Layout of a model's trained parameters but those named in `personal`; ConfigError names one that cannot be."""
    check(model)
    return layout_of_sketch(model, personal)


def layout_of_sketch(model: nn.Module, personal: Collection[str] = ()) -> Layout:
    """The same of a model whose tensors need no values: one on the meta device has none."""
    norms, shapes, roles = norm_layers(model), {}, {}
    for name, parameter in trained(model):
        if name in personal:
            continue
        shapes[name] = tuple(parameter.shape)
        if name.rpartition(".")[0] in norms:
            roles[name] = "norm"
    return Layout.of(shapes, roles)


def check(model: nn.Module) -> None:
    """ConfigError names a tensor that cannot be trained as a part of one flat float32 vector, or read as bytes."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ConfigError("model", type(model).__name__, "a module in Python: TorchScript keeps its tensors to itself")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            allowed = "a tensor with values: let the model's function run one batch through its lazy layers"
            raise ConfigError(f"model tensor {name}", "lazy, not yet initialised", allowed)
        if tensor.is_meta:
            raise ConfigError(f"model tensor {name}", "on the meta device", "a tensor with values")
        if tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"{tensor.dtype}" if tensor.is_quantized else f"{tensor.layout}"
            raise ConfigError(f"model tensor {name}", kind, "a plain tensor: not sparse, not quantised")
    for name, parameter in trained(model):
        if parameter.dtype != torch.float32:
            allowed = "float32 for trained parameters: call .float() on the model, or set requires_grad = False"
            raise ConfigError(f"model tensor {name}", str(parameter.dtype), allowed)
        if not parameter.isfinite().all():
            raise ConfigError(f"model tensor {name}", "NaN or infinite entries", "finite initial values")
    if not sum(parameter.numel() for _, parameter in trained(model)):
        raise ConfigError("model", type(model).__name__, "a model with parameters that are trained (requires_grad)")
    _check_memory(model)
    _check_extra_state(model)


def _check_extra_state(model: nn.Module) -> None:
    """ConfigError names a module whose `get_extra_state` gives something else than a tensor: no file can hold it."""
    for name, module in model.named_modules():
        if type(module).get_extra_state is nn.Module.get_extra_state:
            continue
        if not isinstance(extra := module.get_extra_state(), torch.Tensor):
            allowed = "a tensor: extra state of other types cannot travel, keep it in buffers or do without"
            value = f"get_extra_state() gives {type(extra).__name__}"
            raise ConfigError(f"model layer {name or type(module).__name__}", value, allowed)


def _check_memory(model: nn.Module) -> None:
    """ConfigError names two tensors over one memory: once each has a place of its own, they would part in silence."""
    moves = {name for name, _ in trained(model)}
    tensors = (*model.named_parameters(), *model.named_buffers())
    spans = sorted((*_span(tensor), name) for name, tensor in tensors if tensor.numel())
    end, holder = ("", 0), ""
    for start, stop, name in spans:
        if start < end and {name, holder} & moves:
            allowed = f"memory of its own, or the same Parameter under both names: it shares that of {holder}"
            raise ConfigError(f"model tensor {name}", "a view", allowed)
        if stop > end:
            end, holder = stop, name


def _part(model: nn.Module) -> None:
    """Give buffers whose entries share one place, as `expand` makes them, memory that can be written."""
    for _, owner, key, tensor, _ in places(model):
        if any(size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            owner._buffers[key] = tensor.contiguous()


def _span(tensor: torch.Tensor) -> tuple[tuple[str, int], tuple[str, int]]:
    """First byte and end of a tensor's memory, each with its device."""
    device, start = str(tensor.device), tensor.data_ptr()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return (device, start), (device, start + reach * tensor.element_size())


def _told(name: str, tensor: torch.Tensor) -> bytes:
    """A tensor's name, type and shape."""
    return f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode()


def digest(model: nn.Module) -> bytes:
    """Digest (16 bytes) of all that a model's state holds."""
    found = sha256()
    for name, tensor in (
        *model.named_parameters(),
        *((name, tensor) for name, *_, tensor, kept in places(model) if kept),
    ):
        found.update(_told(name, tensor))
        found.update(bytes_of(tensor))
    return found.digest()[:16]


class FlatModel:
    """A model whose trained parameters are views of `parameters` (P,), their gradients views of `gradient` (P,).

    One optimiser step on one tensor, one copy to read or write the whole model: what makes a small client cheap. The
    first `shared` of them make up the layout, the vector that travels; the parameters named in `personal` stand behind
    them and never leave. Frozen parameters and buffers are left as they are: `buffers` reads and writes those that
    belong to the state and travel, `own_buffers` those that stay on the client, `hidden` puts back what a forward pass
    leaves behind.
    """

    def __init__(self, model: nn.Module, device: str = "cpu", personal: Collection[str] = ()) -> None:
        check(model)
        self.model = model.to(device)
        _part(model)
        self.asleep = [module for module in model.modules() if model.training and not module.training]
        self.train()
        self.layout = layout_of(model, personal)
        ordered = sorted(trained(model), key=lambda item: item[0] in personal)
        self.size = sum(parameter.numel() for _, parameter in ordered)  # P
        self.shared = self.layout.size
        self.parameters = torch.empty(self.size, dtype=torch.float32, device=device)
        self.gradient = torch.zeros_like(self.parameters)
        self.named: list[tuple[str, slice, torch.Size]] = []  # where every parameter is, its name and shape
        self._view(ordered)
        self.held = [  # where every parameter is kept, and where its entries and its gradient are
            (name, module._parameters, key, parameter, parameter.data_ptr(), parameter.grad)
            for name, module, key, parameter in _owned(model)
            if parameter.requires_grad
        ]
        self.initial = self.parameters.to("cpu", copy=True).numpy()  # (P,) as it was built
        self.buffers, self.own_buffers = self._split(buffers_of(model), personal)
        self.first_buffers, self.first_own = self.buffers.read(), self.own_buffers.read()
        self.hidden = Hidden(model)

    def _split(self, buffers: Buffers, personal: Collection[str]) -> tuple[Buffers, Buffers]:
        """Buffers that travel, and those of layers whose parameters all stay on the client."""
        layers: dict[str, list[bool]] = {}
        for name, *_ in self.named:
            layers.setdefault(name.rpartition(".")[0], []).append(name in personal)
        own = {layer for layer, stays in layers.items() if all(stays)}
        stay = [not self.shared or part.name.rpartition(".")[0] in own for part in buffers.parts]
        parts = list(zip(buffers.parts, stay, strict=True))
        return Buffers(tuple(p for p, s in parts if not s)), Buffers(tuple(p for p, s in parts if s))

    def train(self) -> None:
        """Training mode, but for layers that were built in evaluation mode inside a model that was not."""
        self.model.train()
        for module in self.asleep:
            module.training = False

    def reset(self) -> None:
        """Training mode, and the hidden state of the start: what every client's work begins with.

        ConfigError names a parameter that a forward pass has put out of reach: nobody would train it.
        """
        if not self.model.training:
            self.train()
        self.hidden.reset()
        for name, kept, key, parameter, place, gradient in self.held:
            now = kept.get(key)
            if now is not parameter or now.data_ptr() != place or now.grad is not gradient or not now.requires_grad:
                allowed = "the parameter from the start, its gradient left to the training loop"
                raise ConfigError(
                    f"model tensor {name}", "replaced, frozen or its gradient dropped in a forward pass", allowed
                )

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

    @cached_property
    def standing(self) -> bytes:
        """Digest (8 bytes) of what both ends have without a word: frozen parameters and the buffers' first values."""
        found = sha256()
        for name, parameter in frozen(self.model):
            found.update(_told(name, parameter))
            found.update(bytes_of(parameter))
        for part in (*self.buffers.parts, *self.own_buffers.parts):
            found.update(_told(part.name, part.tensor))
        return sha256(found.digest() + self.first_buffers + self.first_own).digest()[:8]

    def read(self) -> np.ndarray:
        """What travels of the model as one float32 vector (n,), a copy, in layout order."""
        return self.parameters[: self.shared].to("cpu", copy=True).numpy()

    def write(self, vector: np.ndarray) -> None:
        """Make the model hold a float32 vector (n,) of what travels."""
        self.parameters[: self.shared].copy_(torch.from_numpy(np.ascontiguousarray(vector)))

    def read_personal(self) -> np.ndarray:
        """What stays on the client as one float32 vector (P − shared,), a copy."""
        return self.parameters[self.shared :].detach().clone().cpu().numpy()

    def write_personal(self, vector: np.ndarray) -> None:
        """Make the model hold a float32 vector (P − shared,) of what stays on the client."""
        self.parameters[self.shared :].copy_(torch.from_numpy(np.ascontiguousarray(vector)))
