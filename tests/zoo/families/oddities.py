"""Models whose parameters have another type, shape or order in memory, and models whose outputs are no logits."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net, Shape, net
from torch import nn


class As(Net):
    """A network in another type; its logits are float32."""

    dtype = torch.float64

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.to(self.dtype)

    def forward(self, x):
        return super().forward(x.to(self.dtype)).float()


class AsBFloat16(As):
    dtype = torch.bfloat16


class AsFloat16(As):
    dtype = torch.float16


class Mixed(Net):
    """One layer is float64."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)

    def hidden(self, h):
        return torch.relu(self.c(h.double()).float())


class FrozenMixed(Mixed):
    """One layer is float64, and frozen."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c.requires_grad_(False)


class Complex(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.phase = nn.Parameter(torch.ones(WIDTH, dtype=torch.complex64))

    def hidden(self, h):
        return torch.relu((h * self.phase).real)


class Codes(Net):
    """A frozen parameter of whole numbers, as of quantised weights."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.codes = nn.Parameter(torch.randint(-8, 8, (WIDTH,), dtype=torch.int8), requires_grad=False)

    def hidden(self, h):
        return torch.relu(h * self.codes.float() / 8)


class Added(Net):
    """Adds a parameter, made by `make`, to what is hidden."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.extra = nn.Parameter(self.make())

    def make(self):
        return torch.tensor(0.5)

    def hidden(self, h):
        return torch.relu(h + self.extra.sum())


class Zero(Added):
    def make(self):
        return torch.zeros(0)


class ThreeByZero(Added):
    def make(self):
        return torch.zeros(3, 0)


class ManyAxes(Added):
    def make(self):
        return torch.zeros(1, 2, 1, 2, 1, 2, 1, 2)


class Constant(Added):
    """All its entries are the same and stay so: every one gets the same gradient."""

    def make(self):
        return torch.zeros(3, 40)


class Transposed(Net):
    """A parameter that does not lie row by row in memory."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH).T[:WIDTH] / 4)

    def hidden(self, h):
        return torch.relu(h @ self.c)


class Expanded(Net):
    """A parameter of one number that is shown sixteen times."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c = nn.Parameter(torch.ones(1).expand(WIDTH))

    def hidden(self, h):
        return torch.relu(h * self.c)


class Infinite(Net):
    """A parameter that begins as infinity."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.bound = nn.Parameter(torch.full((WIDTH,), torch.inf))

    def hidden(self, h):
        return torch.minimum(torch.relu(h), self.bound)


class Tuple(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits, logits.sum()


class Named(Net):
    """Returns a dict, as large language models do."""

    def forward(self, x):
        return {"logits": super().forward(x)}


class FewLogits(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes - 1)


class ManyLogits(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes + 4)


class NoGradient(Net):
    """Its logits do not depend on its weights as far as torch sees."""

    def forward(self, x):
        return super().forward(x).detach()


class NaNLogits(Net):
    def hidden(self, h):
        return torch.log(-torch.relu(h) - 1)


class Fails(Net):
    """Raises an error of several lines in forward."""

    def hidden(self, h):
        raise RuntimeError("the hidden layer is broken\nin two lines")


def wrong_width(shape: Shape, classes: int) -> nn.Module:
    return net((shape[0] + 1,), classes, nn.ReLU())


ZOO = {
    "float64": Entry(As, right="refused"),
    "bfloat16": Entry(AsBFloat16, right="refused"),
    "float16": Entry(AsFloat16, right="refused"),
    "float32 and float64": Entry(Mixed, right="refused"),
    "float32 and frozen float64": Entry(FrozenMixed, right="either"),
    "a complex parameter": Entry(Complex, right="refused"),
    "a frozen int8 parameter": Entry(Codes, right="either"),
    "a parameter of one number": Entry(Added),
    "a parameter of shape (0,)": Entry(Zero),
    "a parameter of shape (3, 0)": Entry(ThreeByZero),
    "a parameter of eight axes": Entry(ManyAxes),
    "a parameter of equal entries": Entry(Constant),
    "a transposed parameter": Entry(Transposed),
    "an expanded parameter": Entry(Expanded, right="either"),
    "an infinite parameter": Entry(Infinite, right="refused"),
    "outputs a tuple": Entry(Tuple, right="refused"),
    "outputs a dict": Entry(Named, right="refused"),
    "too few logits": Entry(FewLogits, right="refused"),
    "more logits than classes": Entry(ManyLogits, right="either"),
    "logits without a gradient": Entry(NoGradient, right="refused"),
    "logits that are NaN": Entry(NaNLogits, right="refused"),
    "an error in forward": Entry(Fails, right="refused"),
    "takes other inputs": Entry(wrong_width, right="refused"),
}
