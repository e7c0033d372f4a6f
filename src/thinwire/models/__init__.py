"""The papers' networks, plain: `MODELS[name]()` builds one at its paper's size, `build` also takes one's own."""

from __future__ import annotations

from thinwire.models.charlstm import CharLSTM
from thinwire.models.cnn import SmallCNN
from thinwire.models.dense import MLP, Linear, TwoLayer
from thinwire.models.lenet import LeNet
from thinwire.models.normalisation import group_norm
from thinwire.models.registry import MODELS, build, builder, check
from thinwire.models.resnet import ResNet18
from thinwire.models.vgg import Conv4, Conv6, Conv10
from thinwire.models.vgg16 import VGG16

__all__ = [
    "MLP",
    "MODELS",
    "VGG16",
    "CharLSTM",
    "Conv4",
    "Conv6",
    "Conv10",
    "LeNet",
    "Linear",
    "ResNet18",
    "SmallCNN",
    "TwoLayer",
    "build",
    "builder",
    "check",
    "group_norm",
]
