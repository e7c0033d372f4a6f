"""Models whose tensors share: one parameter under two names, one memory under two parameters, one module used twice."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net, Shape, net
from torch import nn


class Tied(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c, self.d = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.d.weight = self.c.weight

    def hidden(self, h):
        return torch.relu(self.d(torch.relu(self.c(h))))


class TiedText(nn.Module):
    """The embedding is the last layer's weight."""

    def __init__(self, shape, classes):
        super().__init__()
        self.embedding, self.o = nn.Embedding(classes, 8), nn.Linear(8, classes)
        self.o.weight = self.embedding.weight

    def forward(self, x):
        return self.o(torch.relu(self.embedding(x)))


class TiedModules(Net):
    """One module under two names."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Linear(WIDTH, WIDTH)
        self.d = self.c

    def hidden(self, h):
        return torch.relu(self.d(torch.relu(self.c(h))))


class UsedTwice(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Linear(WIDTH, WIDTH)

    def hidden(self, h):
        return torch.relu(self.c(torch.relu(self.c(h))))


class OneMemory(Net):
    """Two parameters that are halves of one array."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        both = torch.randn(2, WIDTH)
        self.scale, self.shift = nn.Parameter(both[0]), nn.Parameter(both[1])

    def hidden(self, h):
        return torch.relu(h * self.scale + self.shift)


class Overlapping(Net):
    """Two parameters over the same numbers."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Linear(WIDTH, WIDTH)
        self.transposed = nn.Parameter(self.c.weight.data.T)

    def hidden(self, h):
        return torch.relu(torch.relu(self.c(h)) @ self.transposed)


class BufferView(Net):
    """A buffer that is a view of a parameter: it changes as the parameter is trained."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("first", self.a.weight.data[0])

    def hidden(self, h):
        return torch.relu(h) + self.first.sum()


class BufferTwice(Net):
    """One buffer under two names."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("once", torch.full((WIDTH,), 0.5))
        self.register_buffer("again", self.once)

    def hidden(self, h):
        return torch.relu(h) * self.once + self.again


class Lists(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(WIDTH)) for _ in range(3)])

    def hidden(self, h):
        for scale in self.scales:
            h = torch.relu(h * scale)
        return h


class Dicts(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.by = nn.ParameterDict({"scale": torch.ones(WIDTH), "a_b": torch.zeros(WIDTH)})

    def hidden(self, h):
        return torch.relu(h * self.by["scale"] + self.by["a_b"])


class DenseLayers(Net):
    """Names a layer that is to stay as it is where others are factored."""

    dense_layers = ("b",)


class OddNames(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.inner = nn.ModuleDict({"größe 1": nn.Linear(WIDTH, WIDTH), "layout": nn.Linear(WIDTH, WIDTH)})

    def hidden(self, h):
        for layer in self.inner.values():
            h = torch.relu(layer(h))
        return h


def flatten(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), net((64,), classes, nn.ReLU()))


ZOO = {
    "tied weights": Entry(Tied),
    "tied embedding": Entry(TiedText, "text"),
    "a module under two names": Entry(TiedModules),
    "a module used twice": Entry(UsedTwice),
    "two parameters, halves of one memory": Entry(OneMemory, right="either"),
    "two parameters over the same numbers": Entry(Overlapping, right="refused"),
    "a buffer that is a view of a parameter": Entry(BufferView, right="refused"),
    "a buffer under two names": Entry(BufferTwice, right="either", kept=("once", "again")),
    "ParameterList": Entry(Lists),
    "ParameterDict": Entry(Dicts),
    "dense_layers": Entry(DenseLayers),
    "odd names": Entry(OddNames),
    "Flatten": Entry(flatten, "images"),
}
