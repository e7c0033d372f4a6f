"""Every client's work begins with the same draws and the same hidden state."""

import random
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from thinwire.purity import Hidden, drawing, plain, restored


def draws():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random(), np.random.randn()  # noqa: NPY002


def test_a_seed_settles_every_global_generator_and_leaves_no_trace():
    before = draws()
    with restored():
        state = draws()
    after = draws()
    assert state == after  # as if nothing had been drawn inside
    assert before != after
    with drawing(5):
        first = draws()
        with drawing(5):
            assert draws() == first
    with drawing(6):
        assert draws() != first


def test_within_restored_nothing_is_put_back_until_its_end():
    with restored():
        expected = draws()
    with restored():
        with drawing(1):
            draws()
        draws()
    assert draws() == expected


@pytest.mark.parametrize("outside", [
    torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), lambda: default(torch.float64),
    lambda: torch.device("meta"),
], ids=["no_grad", "inference", "autocast", "float64", "meta"])  # fmt: skip
def test_what_a_caller_has_set_in_torch_does_not_reach_inside(outside):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with outside():
        before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
        with plain():
            y = layer(x * torch.ones(()))
            y.sum().backward()
            assert (y.dtype, y.device.type, y.is_inference()) == (torch.float32, "cpu", False)
        assert before == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device())
    assert layer.weight.grad is not None


@contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Counter:
    """A callable with something inside."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        arguments[0].seen = self.calls  # an attribute of one of torch's own modules


class Keeper(nn.Module):
    """Keeps hidden state of many kinds."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.register_buffer("ema", torch.zeros(2), persistent=False)
        self.register_buffer("kept", torch.zeros(2))
        self.calls, self.seen, self.table = 0, [], {"a": torch.ones(2)}
        self.source, self.array, self.none = np.random.default_rng(0), np.zeros(2), None
        self.parts = [self.inner]
        self.counter = Counter()

    def forward(self, x):
        self.ema = self.ema + 1
        self.kept += 1
        self.calls += 1
        self.seen.append(x)
        self.table["a"] += 1
        self.table["b"] = x
        self.array += self.source.random()
        self.none = self.late = x.sum()
        self.register_buffer("made", x, persistent=False)
        self.counter(self.inner)
        return self.inner(x)


def test_everything_that_does_not_travel_is_put_back():
    model = Keeper()
    hidden = Hidden(model)
    for _ in range(2):
        for _ in range(3):
            model(torch.ones(2))
        noise = model.source.random()
        hidden.reset()
        assert model.ema.tolist() == [0, 0]
        assert (model.calls, model.seen, model.none) == (0, [], None)
        assert {key: value.tolist() for key, value in model.table.items()} == {"a": [1, 1]}
        assert model.array.tolist() == [0, 0]
        assert not hasattr(model, "late")
        assert not hasattr(model, "made")
        assert model.parts[0] is model.inner
        assert model.counter.calls == 0
        assert not hasattr(model.inner, "seen")
    assert model.kept.tolist() == [6, 6]  # what belongs to the state is not hidden
    model(torch.ones(2))
    assert model.source.random() != noise


def test_a_buffer_changed_in_place_is_put_back():
    model = Keeper()
    hidden = Hidden(model)
    model.ema += 5
    hidden.reset()
    assert model.ema.tolist() == [0, 0]


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in many models
        return nn.utils.weight_norm(nn.Linear(2, 2))


@pytest.mark.parametrize("make", [
    lambda: nn.LSTM(2, 3), old_weight_norm, lambda: nn.utils.spectral_norm(nn.Linear(2, 2)),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
], ids=["lstm", "weight_norm", "spectral_norm", "parametrized"])  # fmt: skip
def test_torchs_own_layers_go_on_after_a_reset(make):
    layer = make()
    hidden = Hidden(layer)
    x = torch.ones(1, 2)
    layer(x)
    hidden.reset()
    layer(x)
