"""Models with state that changes in forward: in buffers, in attributes, in lists, in the module file itself."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net


class Hidden(Net):
    """A running mean in a buffer that is not part of the state."""

    persistent = False

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("mean", torch.zeros(WIDTH), persistent=self.persistent)

    def hidden(self, h):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.5).add_(0.5 * h.mean(0))
        return torch.relu(h - self.mean)


class Average(Hidden):
    """The same in a buffer that is part of the state."""

    persistent = True


class Reassigned(Hidden):
    """The buffer is made anew in every forward pass."""

    persistent = True

    def hidden(self, h):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * h.mean(0).detach()
        return torch.relu(h - self.mean)


class Cache(Net):
    """The last pass's mean, an attribute."""

    last = None

    def hidden(self, h):
        before, self.last = self.last, h.mean(0).detach()
        return torch.relu(h if before is None else h - 0.1 * before)


class Counter(Net):
    """Every third pass is scaled."""

    calls = 0

    def hidden(self, h):
        self.calls += 1
        return torch.relu(h) * (0.5 if self.calls % 3 == 0 else 1.0)


class Growing(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.seen = []

    def hidden(self, h):
        self.seen.append(float(h.detach().mean()))
        return torch.relu(h - 0.1 * sum(self.seen) / len(self.seen))


class LazyMask(Net):
    """An attribute made in the first pass, always the same: a cache that does no harm."""

    mask = None

    def hidden(self, h):
        if self.mask is None:
            self.mask = (torch.arange(h.shape[1]) % 4 > 0).float()
        return torch.relu(h) * self.mask


class LazyBuffer(Net):
    """A buffer that is registered in the first pass."""

    def hidden(self, h):
        if not hasattr(self, "mask"):
            self.register_buffer("mask", (torch.arange(h.shape[1]) % 4 > 0).float())
        return torch.relu(h) * self.mask


class HugeCounter(Net):
    """An int64 counter of the steps that no float can hold."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("steps", torch.tensor(2**62, dtype=torch.int64))

    def hidden(self, h):
        if self.training:
            self.steps += 1
        return torch.relu(h) * (0.5 if self.steps % 2 else 1.0)


class NeedsEvaluation(Net):
    """Its forward pass in evaluation needs what one in training left: it fails when it was never trained."""

    centre = None

    def hidden(self, h):
        if self.training:
            self.centre = h.mean(0).detach()
        return torch.relu(h - self.centre)


ZOO = {
    "a non-persistent buffer that changes": Entry(Hidden, right="either"),
    "a moving average in a buffer": Entry(Average),
    "a buffer made anew in forward": Entry(Reassigned, right="either"),
    "an attribute that changes": Entry(Cache, right="either"),
    "a counter attribute": Entry(Counter, right="either"),
    "a list that grows": Entry(Growing, right="either"),
    "a mask made in the first pass": Entry(LazyMask, right="either"),
    "a buffer registered in the first pass": Entry(LazyBuffer, right="either"),
    "a step counter from 2**62 on": Entry(HugeCounter, right="either", grows=("steps",)),
    "evaluation needs state of training": Entry(NeedsEvaluation, right="either"),
}
