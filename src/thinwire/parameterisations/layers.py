"""Which tensors of a model are factored, which stay dense and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from thinwire.parameterisations.factors import Factors
from thinwire.parameterisations.kinds import Parameterisation
from thinwire.tensors import norm_layers

_KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.RNNBase)


@dataclass(frozen=True)
class Row:
    """One tensor: parameters before and after; `rank` None and a reason in `note` where it stays dense."""

    layer: str
    tensor: str
    original: int
    now: int
    rank: int | None
    note: str = ""


@dataclass(frozen=True)
class Place:
    """One tensor of a layer, the parametrisation it is to get or None, and the row about it."""

    module: nn.Module
    row: Row
    factors: Factors | None


def places(model: nn.Module, how: Parameterisation) -> list[Place]:
    """Every weight of a known layer, and every tensor of an unknown one, in the model's order."""
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    patterns = [
        *((p, "named in exclude") for p in how.exclude),
        *((p, "the model keeps it dense") for p in _kept(model)),
    ]
    norms, found = norm_layers(model), []
    for name, module in _layers(model):
        if name in norms:
            continue
        named = next((reason for pattern, reason in patterns if fnmatchcase(name, pattern)), "")
        for tensor, parameter in module._parameters.items():
            if parameter is not None and (not isinstance(module, _KNOWN) or _is_weight(module, tensor)):
                reason = named or _reason(module, tensor, shared=owners[id(parameter)] > 1)
                found.append(_place(name, module, tensor, reason, how))
    return found


def unused(model: nn.Module, how: Parameterisation) -> list[str]:
    """Patterns in `exclude` that match no layer of the model."""
    names = [name for name, _ in _layers(model)]
    return [pattern for pattern in how.exclude if not any(fnmatchcase(name, pattern) for name in names)]


def _kept(model: nn.Module) -> Iterable[str]:
    return getattr(model, "dense_layers", ())


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named layers, without the insides of parametrisations that are already there."""
    inside = {id(m) for part in model.modules() if isinstance(part, ParametrizationList) for m in part.modules()}
    return ((name, module) for name, module in model.named_modules() if id(module) not in inside)


def _is_weight(module: nn.Module, tensor: str) -> bool:
    """Is the tensor one of the weights of a known layer, not a bias?"""
    return tensor.startswith("weight") if isinstance(module, nn.RNNBase) else tensor == "weight"


def _reason(module: nn.Module, tensor: str, shared: bool) -> str:
    """Why the tensor cannot be factored, or nothing."""
    if isinstance(module._parameters[tensor], UninitializedParameter):
        return "not yet initialised"
    if not isinstance(module, _KNOWN):
        return f"layer type {type(module).__name__} is not factored"
    if not module._parameters[tensor].requires_grad:  # type: ignore[union-attr]
        return "frozen"
    if tensor.startswith("weight_hr"):
        return "a projection is not factored"
    return "shared with another layer" if shared else ""


def _place(name: str, module: nn.Module, tensor: str, reason: str, how: Parameterisation) -> Place:
    parameter = module._parameters[tensor]
    assert parameter is not None
    shape = () if isinstance(parameter, UninitializedParameter) else tuple(parameter.shape)
    original = prod(shape) if shape or not reason.startswith("not yet") else 0
    if reason or not original:
        return Place(module, Row(name, tensor, original, original, None, reason or "empty"), None)
    factors = how.factors(shape, variance_of(module, shape))
    if factors.size >= original:
        note = f"would not shrink: {factors.size:,} at rank {factors.rank}"
        return Place(module, Row(name, tensor, original, original, None, note), None)
    factors.order = tuple(module._parameters)
    return Place(module, Row(name, tensor, original, factors.size, factors.rank), factors)


def variance_of(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Var(W) of the dense layer at its start: He's 2 / fan-in.

    The matrices of a recurrent layer take PyTorch's own uniform(±1/√hidden), variance 1 / (3 hidden): there He's
    variance would blow the state up from step to step.
    """
    return 1 / (3 * module.hidden_size) if isinstance(module, nn.RNNBase) else 2 / prod(shape[1:])


def factored(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Factors]]:
    """(name, layer, tensor, factors) of every weight that `parameterise` replaced."""
    for name, module in model.named_modules():
        if is_parametrized(module):
            for tensor, parts in module.parametrizations.items():
                if isinstance(parts[0], Factors):
                    yield name, module, tensor, parts[0]
