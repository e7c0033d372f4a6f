"""From a model's name, or from one's own function, to a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pkgutil import resolve_name

import numpy as np
import torch
from torch import nn

from thinwire.errors import ConfigError, ThinwireError, line, one_of
from thinwire.models.charlstm import CharLSTM
from thinwire.models.cnn import SmallCNN
from thinwire.models.dense import MLP, Linear, TwoLayer
from thinwire.models.lenet import LeNet
from thinwire.models.resnet import ResNet18
from thinwire.models.vgg import Conv4, Conv6, Conv10
from thinwire.models.vgg16 import VGG16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "mlp2": TwoLayer,
    "lenet": LeNet,
    "conv4": Conv4,
    "conv6": Conv6,
    "conv10": Conv10,
    "cnn-gn": SmallCNN,
    "vgg16": VGG16,
    "resnet18": ResNet18,
    "charlstm": CharLSTM,
}


def builder(spec: str, shape: tuple[int, ...], classes: int) -> Callable[[], nn.Module]:
    """What makes the model `spec` for inputs of `shape` (without the batch axis) and `classes` logits.

    `spec` is a name in MODELS, or `module:function`: called as function(shape, classes) if it can take two arguments,
    else as function(). It is imported here and not when the model is made, for what a module draws while it is imported
    must not count among the draws of the weights. Those are drawn from the global generators alone, which the caller
    seeds.

    Raises:
        ConfigError: no such model, or it cannot be imported; when called: images too small for it, or the function
            fails or returns no module.
    """
    if spec in MODELS:
        return partial(MODELS[spec], shape, classes)
    function = _resolve(spec)
    arguments = _arguments(spec, function, (shape, classes))

    def make() -> nn.Module:
        try:
            model = function(*arguments)
        except ThinwireError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's own code raises
            raise ConfigError("model", spec, f"a function that makes a model ({line(error)})") from error
        if not isinstance(model, nn.Module):
            raise ConfigError("model", spec, f"must return a torch.nn.Module, not {type(model).__name__}")
        return model

    return make


def build(spec: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A model of `builder`.

    >>> sum(p.numel() for p in build("mlp", (1, 8, 8), 10).parameters())
    85002
    """
    return builder(spec, shape, classes)()


def check(spec: str, model: nn.Module, x: np.ndarray, y: np.ndarray, classes: int) -> None:
    """Try a model on a few samples: (n, ...) and labels (n,) or, of text, (n, length).

    Raises:
        ConfigError: it cannot take them, or has not one output for each class at every label.
    """
    model.eval()
    try:
        with torch.no_grad():
            found = model(torch.from_numpy(x).to(next(model.parameters()).device))
    except Exception as error:  # whatever the user's own code raises
        raise ConfigError("model", spec, f"must take inputs of shape {x.shape} ({line(error)})") from error
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    fits = isinstance(shape, tuple) and shape[:-1] == y.shape and shape[-1] >= classes
    if not fits:
        wanted = f"must give {(*y.shape, classes)} for inputs of shape {x.shape}: an output for each class, not {shape}"
        raise ConfigError("model", spec, wanted)


def _arguments(spec: str, function: Callable[..., object], both: tuple[object, ...]) -> tuple[object, ...]:
    """What a function is called with: shape and classes where it takes them, else nothing."""
    try:
        taken = signature(function)
    except (TypeError, ValueError):  # of a function that is not written in Python: calling it tells
        return both
    for arguments in (both, ()) if taken.parameters else ((),):
        try:
            taken.bind(*arguments)
        except TypeError:
            continue
        return arguments
    raise ConfigError("model", spec, f"must be called as (shape, classes) or without arguments, not {taken}")


def _resolve(spec: str) -> Callable[..., object]:
    """Import the function that `module:function` names."""
    if ":" not in spec:
        raise ConfigError("model", spec, one_of(spec, MODELS, ", or module:function"))
    try:
        function = resolve_name(spec)
    except (Exception, SystemExit) as error:  # whatever the user's own module raises
        raise ConfigError("model", spec, f"cannot be imported: {line(error)}") from error
    if not callable(function):
        raise ConfigError("model", spec, f"must be a function, not {type(function).__name__}")
    return function
