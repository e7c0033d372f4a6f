"""Factors into a model and out of it again: parameterise, plan, compose.

>>> import torch
>>> from thinwire.parameterisations import FedPara
>>> model = parameterise(torch.nn.Sequential(torch.nn.Linear(784, 256)), FedPara(gamma=0.5), report=None)
>>> sum(p.numel() for p in model.parameters()), sum(p.numel() for p in compose(model).parameters())
(116736, 200960)
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import parametrize

from thinwire.parameterisations.kinds import Parameterisation
from thinwire.parameterisations.layers import Row, factored, places, unused
from thinwire.parameterisations.recurrent import unhook

HEADER = ("layer", "tensor", "original", "now", "rank", "note")


def plan(model: nn.Module, how: Parameterisation) -> list[Row]:
    """What `parameterise` would do to every weight, without doing it."""
    return [place.row for place in places(model, how)]


def parameterise(model: nn.Module, how: Parameterisation, report: Callable[[str], object] | None = print) -> nn.Module:
    """Replace the weights of a model by factors, in place; the same model is returned.

    Linear, Conv1d, Conv2d (grouped ones too) and every matrix of LSTM, GRU and RNN get factors, freshly drawn from
    torch's global generator: the weights' values are not kept. Layers that would not shrink, that `how.exclude` or the
    model's own `dense_layers` names, that share their tensor, or of another type stay as they are. Biases and
    norms always do. `report` is called with a table of it all; None for silence.
    A factored model holds new parameters (build optimisers after this call), cannot be pickled (use its state_dict),
    and weights are made anew at every use, unless within `torch.nn.utils.parametrize.cached()`: once a step.
    """
    found = places(model, how)
    table = table_of([place.row for place in found], sum(p.numel() for p in _counted(model)), unused(model, how))
    for place in found:
        if place.factors is not None:
            parametrize.register_parametrization(place.module, place.row.tensor, place.factors)
            if isinstance(place.module, nn.RNNBase):
                unhook(place.module)
    if report is not None:
        report(table)
    return model


def _counted(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if not isinstance(p, nn.parameter.UninitializedParameter)]


def compose(model: nn.Module) -> nn.Module:
    """A copy with plain weights W in place of their factors; the model itself is left as it is.

    For inference: the same outputs, at the dense model's cost. A model without factors is merely copied.
    """
    plain = deepcopy(model, _made_by_layers(model))
    for _, module, tensor, factors in list(factored(plain)):
        _unfactor(module, tensor)
        for name in factors.order:
            if name in module._parameters:
                module._parameters[name] = module._parameters.pop(name)
        if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
            module._init_flat_weights()
    return plain


def _made_by_layers(model: nn.Module) -> dict[int, torch.Tensor]:
    """Values for tensors that a layer has computed and holds, as old weight_norm does; they cannot be copied."""
    held = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value.detach() for value in held if isinstance(value, torch.Tensor) and not value.is_leaf}


def _unfactor(module: nn.Module, tensor: str) -> None:
    """Put the composed weight in place of its parametrisation, past torch's cache and whatever the gradient mode.

    torch's own remove_parametrizations would take the property from the class, which a deep copy shares with the
    layer it was copied from; so the copy gets a class of its own first.
    """
    lists = module.get_submodule("parametrizations")
    assert isinstance(lists, nn.ModuleDict)
    trains = any(p.requires_grad for p in lists[tensor].parameters())
    weight = nn.Parameter(lists[tensor]().detach(), requires_grad=trains)
    kind = type(module)
    module.__class__ = type(kind.__name__, kind.__bases__, {k: v for k, v in vars(kind).items() if k != tensor})
    del lists[tensor]
    module.register_parameter(tensor, weight)
    if not lists:
        del module.parametrizations
        module.__class__ = kind.__bases__[0]


def personal_names(model: nn.Module) -> frozenset[str]:
    """Names, as in `named_parameters`, of the factors that stay on the client; empty unless pfedpara's are there."""
    return frozenset(
        f"{name + '.' if name else ''}parametrizations.{tensor}.original{index}"
        for name, _, tensor, factors in factored(model)
        for index in factors.personal
    )


def table_of(rows: list[Row], original: int, unused: list[str]) -> str:
    """The rows as text, and the whole model's parameters (biases, norms and all) before and after."""
    now = original + sum(row.now - row.original for row in rows)
    cells = [
        HEADER,
        *(_cells(row) for row in rows),
        ("total", "", f"{original:,}", f"{now:,}", "", _share(now, original)),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = [
        "  ".join(_align(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    lines += [f"exclude {pattern!r} matches no layer" for pattern in unused]
    return "\n".join(line.rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    rank = "" if row.rank is None else str(row.rank)
    note = f"dense: {row.note}" if row.rank is None else row.note
    return row.layer or "(model)", row.tensor, f"{row.original:,}", f"{row.now:,}", rank, note


def _share(now: int, original: int) -> str:
    return f"{100 * now / original:.1f} %" if original else ""


def _align(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 2 <= column <= 4 else cell.ljust(width)
