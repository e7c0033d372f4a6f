"""What a forward pass may look at besides weights, buffers and samples: torch's settings, generators, hidden state.

A client's work must be a function of what it was sent, its own state and its samples; else its bytes depend on who
trained before it in the same process, or on what its caller has set. `plain` sets torch's own settings, `drawing` seeds
every global generator; both restore. `Hidden` remembers what a model keeps outside its state (buffers that are not
persistent, attributes, caches) and puts it back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from thinwire.buffers import places
from thinwire.errors import ConfigError

_BASE = frozenset(vars(nn.Module()))  # attributes that every module has
_FIXED = (
    bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size,
    FunctionType, BuiltinFunctionType,
)  # fmt: skip


@contextmanager
def plain() -> Iterator[None]:
    """Torch as it is at the start of a process: float32 on the processor, with gradients, without autocast."""
    dtype, here = torch.get_default_dtype(), torch.device("cpu")
    # only where it is another one: every operation inside passes through the device
    device = nullcontext() if torch.get_default_device() == here else here
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False), device:
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def restored(device: str = "cpu") -> Iterator[None]:
    """Within it torch is `plain`; afterwards it and all global generators are as they were. Within another: nothing.

    Generators: torch's, numpy's and Python's. Saving them costs a tenth of a millisecond, more than a small client's
    step: a run does it once, around all of it.
    """
    global _depth
    saved = _states(device) if _depth == 0 else None
    _depth += 1
    try:
        with plain() if saved else nullcontext():
            yield
    finally:
        _depth -= 1
        if saved:
            _restore_states(saved)


@contextmanager
def drawing(seed: int, device: str = "cpu") -> Iterator[None]:
    """The global generators begin at a seed; afterwards they are as `restored` leaves them."""
    with restored(device):
        torch.default_generator.manual_seed(seed)
        if device == "cuda":
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  a model may draw from it
        random.seed(seed)
        yield


_depth = 0  # of `restored` within `restored`


def _states(device: str) -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if device == "cuda" else None
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda  # noqa: NPY002


def _restore_states(saved: tuple[Any, ...]) -> None:
    torch.set_rng_state(saved[0])
    np.random.set_state(saved[1])  # noqa: NPY002
    random.setstate(saved[2])
    if saved[3] is not None:
        torch.cuda.set_rng_state_all(saved[3])


class Hidden:
    """A model's hidden state as it was when this was made; `reset` puts it back.

    What cannot be copied (an open file, a lock) stays as it is, and so does what a class or a module of Python keeps: a
    trial of the model before the run finds out whether that matters.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [(module, dict(module._modules), dict(module._buffers)) for module in model.modules()]
        self.parameters = {id(module): frozenset(module._parameters) for module in model.modules()}
        self.loose = [
            (tensor, tensor.detach().clone(), tensor._version) for *_, tensor, belongs in places(model) if not belongs
        ]
        parts = (*model.modules(), *model.parameters(), *model.buffers())
        self.same = {id(part): part for part in parts}  # copies refer to the model's own parts
        self.fixed, self.copied = [], []
        for module, *_ in self.modules:
            attributes = {key: value for key, value in vars(module).items() if key not in _BASE}
            copied = {key: value for key, value in attributes.items() if not _is_fixed(value)}
            self.fixed.append((module, attributes, len(vars(module))))
            if copies := {key: copy for key, value in copied.items() if (copy := self._copy(value)) is not _NOT}:
                self.copied.append((module, copies))

    def _copy(self, value: Any) -> Any:
        if type(value) is list and all(map(_is_fixed, value)):  # as convolutions have one
            return list(value)
        try:
            return deepcopy(value, dict(self.same))
        except Exception:  # whatever an object of somebody's own raises
            return _NOT

    def reset(self) -> None:
        """Put everything back; ConfigError for a parameter that a forward pass has made: nobody would train it."""
        for module, children, buffers in self.modules:
            if new := [name for name in module._parameters if name not in self.parameters[id(module)]]:
                named = f"model tensor {new[0]} of {type(module).__name__}"
                raise ConfigError(named, "made in a forward pass", "a parameter from the start")
            _restore(module._modules, children)
            if module._buffers != {} or buffers:
                _restore_loose(module, buffers)
        for number, (tensor, start, version) in enumerate(self.loose):
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(start)
                self.loose[number] = (tensor, start, tensor._version)
        for module, attributes, size in self.fixed:
            now = vars(module)
            for key in [key for key in now if key not in attributes and key not in _BASE] if len(now) != size else ():
                del now[key]
            now.update(attributes)
        for module, copies in self.copied:
            vars(module).update({key: self._copy(value) for key, value in copies.items()})


_NOT = object()  # stands for what cannot be copied


def _is_fixed(value: Any) -> bool:
    """Can nothing inside a value change?"""
    if isinstance(value, tuple | frozenset):
        return all(map(_is_fixed, value))
    return isinstance(value, _FIXED)


def _restore(now: dict[str, Any], before: dict[str, Any]) -> None:
    if len(now) != len(before) or any(now.get(key) is not value for key, value in before.items()):
        now.clear()
        now.update(before)


def _restore_loose(module: nn.Module, before: dict[str, torch.Tensor | None]) -> None:
    """Buffers that are not persistent are the tensors that they were; those of the state may be new ones."""
    now, loose = module._buffers, module._non_persistent_buffers_set
    for key in [key for key in now if key not in before]:
        del now[key]
        loose.discard(key)
    for key, value in before.items():
        if key in loose or key not in now:
            now[key] = value
