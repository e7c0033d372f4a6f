"""Models with constants in their state: masks, positions, numbers of every type."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net


class Constant(Net):
    """Adds what its constants, made by `make`, come to."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("constant", self.make())

    def make(self):
        return torch.arange(WIDTH)

    def hidden(self, h):
        return torch.relu(h + self.constant.float() / WIDTH)


class CausalMask(Constant):
    """-inf above the diagonal, added before a softmax."""

    def make(self):
        return torch.full((WIDTH, WIDTH), -torch.inf).triu(1)

    def hidden(self, h):
        weights = torch.softmax(self.constant, dim=1)
        return torch.relu(h @ weights.T)


class BoolMask(Constant):
    def make(self):
        return torch.arange(WIDTH) % 3 > 0

    def hidden(self, h):
        return torch.relu(h).masked_fill(~self.constant, 0.0)


class Float64(Constant):
    def make(self):
        return torch.linspace(0, 1, WIDTH, dtype=torch.float64) / 3


class Float16(Constant):
    def make(self):
        return torch.linspace(0, 1, WIDTH).half()


class BFloat16(Constant):
    def make(self):
        return torch.linspace(0, 1, WIDTH).bfloat16()


class Int8(Constant):
    def make(self):
        return torch.arange(-8, WIDTH - 8, dtype=torch.int8)


class UInt8(Constant):
    def make(self):
        return torch.arange(255 - WIDTH, 255, dtype=torch.uint8)


class Int32(Constant):
    def make(self):
        return torch.arange(2**31 - WIDTH, 2**31).int()

    def hidden(self, h):
        return torch.relu(h * (self.constant % 2))


class Int64(Constant):
    """Whole numbers that neither float32 nor float64 can hold."""

    def make(self):
        return torch.arange(2**62 + 1, 2**62 + 1 + WIDTH)

    def hidden(self, h):
        return torch.relu(h * (self.constant % 2))


class Float32Constant(Constant):
    """An odd float32 for which means and differences lose bits."""

    def make(self):
        return torch.linspace(1e-30, 1e30, WIDTH)

    def hidden(self, h):
        return torch.relu(h * torch.log10(self.constant.abs() + 1) / 30)


class Complex(Constant):
    def make(self):
        return torch.polar(torch.ones(WIDTH), torch.arange(WIDTH).float())

    def hidden(self, h):
        return torch.relu(h + self.constant.real)


class NotANumber(Constant):
    """NaN as a mark of what is missing."""

    def make(self):
        return torch.where(torch.arange(WIDTH) % 4 == 0, torch.nan, 1.0)

    def hidden(self, h):
        return torch.relu(h * torch.nan_to_num(self.constant))


class Empty(Constant):
    def make(self):
        return torch.zeros(0, 3)

    def hidden(self, h):
        return torch.relu(h + self.constant.sum())


class Scalar(Constant):
    def make(self):
        return torch.tensor(0.5)


class Nothing(Net):
    """A buffer that is None."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("constant", None)


def _kept(kind: type[Constant]) -> Entry:
    return Entry(kind, right="either", kept=("constant",))


ZOO = {
    "positions, int64": Entry(Constant, kept=("constant",)),
    "a mask of -inf": Entry(CausalMask, kept=("constant",)),
    "a mask, bool": Entry(BoolMask, kept=("constant",)),
    "a float64 buffer": _kept(Float64),
    "a float16 buffer": _kept(Float16),
    "a bfloat16 buffer": _kept(BFloat16),
    "an int8 buffer": _kept(Int8),
    "a uint8 buffer": _kept(UInt8),
    "an int32 buffer of large numbers": _kept(Int32),
    "an int64 buffer of large numbers": _kept(Int64),
    "a float32 buffer, 1e-30 to 1e30": Entry(Float32Constant, kept=("constant",)),
    "a complex buffer": _kept(Complex),
    "a buffer with NaN": _kept(NotANumber),
    "an empty buffer": _kept(Empty),
    "a buffer of one number": Entry(Scalar, kept=("constant",)),
    "a buffer that is None": Entry(Nothing),
}
