"""The papers' networks, plain: `MODELS[name]()` builds one at its paper's size, `build` also takes one's own."""

from __future__ import annotations

from thinwire.models.dense import MLP, Linear
from thinwire.models.lenet import LeNet
from thinwire.models.registry import MODELS, build
from thinwire.models.vgg import Conv4, Conv6, Conv10

__all__ = ["MLP", "MODELS", "Conv4", "Conv6", "Conv10", "LeNet", "Linear", "build"]
