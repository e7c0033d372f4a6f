"""From a model's name, or from one's own function, to a module."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pkgutil import resolve_name

import numpy as np
import torch
from torch import nn

from thinwire.errors import ConfigError, one_of
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


def build(spec: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the model `spec` for inputs of `shape` (without the batch axis) and `classes` logits.

    `spec` is a name in MODELS, or `module:function`: called as function(shape, classes) if it can take two arguments,
    else as function(). Initial weights are drawn from torch's global generator alone, which the caller seeds.

    >>> sum(p.numel() for p in build("mlp", (1, 8, 8), 10).parameters())
    85002

    Raises:
        ConfigError: no such model, images too small for it, or the function returns no module.
    """
    if spec in MODELS:
        return MODELS[spec](shape, classes)
    function = _resolve(spec)
    model = function(*_arguments(spec, function, (shape, classes)))
    if not isinstance(model, nn.Module):
        raise ConfigError("model", spec, f"must return a torch.nn.Module, not {type(model).__name__}")
    return model


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
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError("model", spec, f"must take inputs of shape {x.shape} ({why})") from error
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    fits = isinstance(shape, tuple) and shape[:-1] == y.shape and shape[-1] >= classes
    if not fits:
        wanted = f"must give {(*y.shape, classes)} for inputs of shape {x.shape}: an output for each class, not {shape}"
        raise ConfigError("model", spec, wanted)


def _arguments(spec: str, function: Callable[..., object], both: tuple[object, ...]) -> tuple[object, ...]:
    """What a function is called with: shape and classes where it takes them, else nothing."""
    taken = signature(function)
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
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("model", spec, f"cannot be imported: {error}") from error
    if not callable(function):
        raise ConfigError("model", spec, f"must be a function, not {type(function).__name__}")
    return function
