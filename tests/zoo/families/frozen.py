"""Models of which a part is not trained: frozen, unused, or all of it."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net, Shape, net
from torch import nn


def frozen_layer(shape: Shape, classes: int) -> nn.Module:
    model = net(shape, classes, nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    model[2].requires_grad_(False)
    return model


def frozen_first(shape: Shape, classes: int) -> nn.Module:
    model = net(shape, classes, nn.ReLU())
    model[0].requires_grad_(False)
    return model


def frozen_bias(shape: Shape, classes: int) -> nn.Module:
    model = net(shape, classes, nn.ReLU())
    model[2].bias.requires_grad_(False)
    return model


def all_but_one(shape: Shape, classes: int) -> nn.Module:
    model = net(shape, classes, nn.ReLU())
    model.requires_grad_(False)
    model[2].weight.requires_grad_(True)
    return model


def frozen_batchnorm(shape: Shape, classes: int) -> nn.Module:
    model = net(shape, classes, nn.BatchNorm1d(WIDTH), nn.ReLU())
    model[1].requires_grad_(False)
    return model


class FrozenStatistics(Net):
    """A normalisation layer that stays in evaluation mode, as in fine-tuning."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.norm = nn.BatchNorm1d(WIDTH).requires_grad_(False)
        self.norm.running_mean.fill_(0.25)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def hidden(self, h):
        return torch.relu(self.norm(h))


class FrozenTied(Net):
    """A frozen embedding of the classes, under two names."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c, self.d = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.d.weight = self.c.weight
        self.c.weight.requires_grad_(False)

    def hidden(self, h):
        return torch.relu(self.d(torch.relu(self.c(h))))


class UnusedParameter(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.unused = nn.Parameter(torch.ones(3, 2))


class UnusedLayer(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.unused = nn.Linear(WIDTH, 2)


class Detached(Net):
    """The first layer never gets a gradient, though it is not frozen."""

    def hidden(self, h):
        return torch.relu(h).detach()


class NoParameter(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x[:, : self.classes]


def all_frozen(shape: Shape, classes: int) -> nn.Module:
    return net(shape, classes, nn.ReLU()).requires_grad_(False)


ZOO = {
    "a frozen layer": Entry(frozen_layer),
    "a frozen first layer": Entry(frozen_first),
    "a frozen bias": Entry(frozen_bias),
    "all but one frozen": Entry(all_but_one),
    "a frozen BatchNorm": Entry(frozen_batchnorm),
    "BatchNorm held in evaluation mode": Entry(
        FrozenStatistics, kept=("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
    ),
    "a frozen tied weight": Entry(FrozenTied),
    "an unused parameter": Entry(UnusedParameter),
    "an unused layer": Entry(UnusedLayer),
    "a layer without a gradient": Entry(Detached),
    "no parameter": Entry(NoParameter, right="refused"),
    "all frozen": Entry(all_frozen, right="refused"),
}
