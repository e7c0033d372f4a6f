"""Models that draw random numbers in forward."""

import random

import numpy as np
import torch
from tests.zoo.families.pieces import Entry, Net, Shape, image, net
from torch import nn
from torch.nn.functional import dropout as drop


def plain(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU())


def dropout(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.Dropout(0.3))


def dropout2d(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.Dropout2d(0.3))


def alpha_dropout(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.SELU(), nn.AlphaDropout(0.3))


def rrelu(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.RReLU())


class DropPath(Net):
    def hidden(self, h):
        keep = torch.rand(len(h), 1) > 0.3 if self.training else torch.ones(len(h), 1)
        return torch.relu(h) * keep


class AlwaysDrops(Net):
    """Draws when it is evaluated, too."""

    def hidden(self, h):
        return drop(torch.relu(h), 0.3, training=True)


class NumpyNoise(Net):
    def hidden(self, h):
        draw = np.random.normal
        noise = draw(size=h.shape) if self.training else np.zeros(h.shape)
        return torch.relu(h + 0.1 * torch.from_numpy(noise).float())


class PythonNoise(Net):
    def hidden(self, h):
        return torch.relu(h) * (random.random() if self.training else 0.5)


class OwnGenerator(Net):
    """Its draws come from a generator that it keeps: each forward pass leaves it in another state."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.draw = torch.Generator().manual_seed(0)

    def hidden(self, h):
        return torch.relu(h) * torch.rand(h.shape[1], generator=self.draw)


class Multinomial(Net):
    def hidden(self, h):
        return torch.relu(h)[:, torch.multinomial(torch.ones(h.shape[1]), h.shape[1])]


class LSTMDropout(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.r, self.o = nn.LSTM(1, 8, 2, dropout=0.5, batch_first=True), nn.Linear(8, classes)

    def forward(self, x):
        return self.o(self.r(x[..., None])[0].mean(1))


ZOO = {
    "plain": Entry(plain),
    "dropout": Entry(dropout),
    "dropout2d": Entry(dropout2d, "images"),
    "alpha dropout": Entry(alpha_dropout),
    "rrelu": Entry(rrelu),
    "drop path, torch.rand": Entry(DropPath),
    "dropout in evaluation too": Entry(AlwaysDrops, right="either"),
    "numpy.random in forward": Entry(NumpyNoise, right="either"),
    "random.random in forward": Entry(PythonNoise, right="either"),
    "a torch.Generator of its own": Entry(OwnGenerator, right="either"),
    "torch.multinomial": Entry(Multinomial, right="either"),
    "LSTM with dropout": Entry(LSTMDropout),
}
