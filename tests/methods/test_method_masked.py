"""The masked parameterisation: frozen weights, sampling, gradient, what has a mask and what has none."""

import numpy as np
import pytest
import torch
from torch import nn
from toyworld import Tied, build, grouped, two_layers

from thinwire import rng
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import Data
from thinwire.parameterisations import Masked, frozen_weights, mask_layout
from thinwire.parameterisations.mask import bernoulli, bit_source
from thinwire.parameterisations.rounding import ROUNDINGS, round_mask
from thinwire.tensors import FlatModel


def masked_over(model, straight_through="identity", sparsity=0.0, seed=5):
    flat = FlatModel(model)
    frozen = frozen_weights(mask_layout(flat.layout), seed, gain=2.0)
    masked = Masked(flat, frozen, straight_through, sparsity)
    masked.start(np.random.default_rng(0).normal(0, 2, frozen.size).astype(np.float32), seed=9)
    return masked


@pytest.mark.parametrize("straight_through", ["identity", "probability"])
@pytest.mark.parametrize("sparsity", [0.0, 7.0])
@pytest.mark.parametrize("model", [two_layers, grouped])
def test_pull_is_the_gradient_of_the_formula(straight_through, sparsity, model):
    masked = masked_over(model(), straight_through, sparsity)
    x, y = torch.randn(11, 6, generator=torch.manual_seed(1)), torch.arange(11) % 3
    masked.push()
    nn.functional.cross_entropy(masked.model(x), y).backward()
    masked.pull()

    # the same by autograd: m is a leaf whose value is the sample, θ's gradient flows through it straight
    s = masked.trained.clone().requires_grad_()
    theta = torch.sigmoid(s)
    sample = bernoulli(theta.detach(), bit_source(9, s.device)).float()
    weight = theta.detach() if straight_through == "probability" else torch.ones_like(theta)
    m = sample + weight * (theta - theta.detach())
    values, tensors = masked.frozen * m, {}
    for entry in mask_layout(masked.flat.layout):
        tensors[entry.name] = values[entry.slice].view(entry.shape)
    loss = nn.functional.cross_entropy(torch.func.functional_call(masked.model, tensors, x), y)
    (loss + sparsity * theta.mean()).backward()
    torch.testing.assert_close(masked.trained.grad, s.grad, rtol=1e-4, atol=1e-7)
    assert s.grad.abs().max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1023])
def test_bernoulli_gives_zeros_and_ones_of_every_length(count):
    draw = bernoulli(torch.full((count,), 0.5), bit_source(1, torch.device("cpu"))).float()
    assert draw.shape == (count,)
    assert set(draw.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("theta", [0.0, 1e-4, 0.01, 0.3, 0.5, 0.77, 0.99, 1 - 1e-4, 1.0])
def test_bernoulli_frequencies(theta):
    count, source = 400_000, bit_source(4, torch.device("cpu"))
    mean = bernoulli(torch.full((count,), theta), source).double().mean().item()
    # five standard deviations of a mean, and the 16-bit grid's bias
    assert abs(mean - theta) <= 5 * np.sqrt(theta * (1 - theta) / count) + 2**-15
    if theta == 0.0:
        assert mean == 0


def test_bernoulli_draws_follow_the_seed_and_move_on():
    theta, cpu = torch.full((1000,), 0.5), torch.device("cpu")
    source = bit_source(4, cpu)
    first, second = bernoulli(theta, source), bernoulli(theta, source)
    assert torch.equal(first, bernoulli(theta, bit_source(4, cpu)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, bernoulli(theta, bit_source(5, cpu)))


def test_bernoulli_of_a_torch_generator():
    draws = bernoulli(torch.full((100_000,), 0.3), torch.Generator().manual_seed(1))
    assert draws.double().mean().item() == pytest.approx(0.3, abs=0.01)


def test_frozen_signs_are_literally_these():
    # Philox-4x64-10 with the key of seed 0: FORMAT.md's own draws, the same on every machine and for ever
    signs = np.sign(frozen_weights(Layout.of({"w": (4, 8)}), seed=0, gain=1.0)).astype(int)
    assert "".join("-+"[int(s > 0)] for s in signs) == SIGNS_OF_SEED_0
    np.testing.assert_array_equal(signs, 1 - 2 * rng.raw_bits(0, "frozen-signs", 32).astype(int))


SIGNS_OF_SEED_0 = "---++-+--++---++-+-+-+-++-++++++"


def test_frozen_weights_are_signed_constants_of_each_layers_fan_in():
    layout = Layout.of({"conv.weight": (8, 3, 5, 5), "conv.bias": (8,), "fc.weight": (4, 9), "fc.bias": (4,)})
    frozen = frozen_weights(layout, seed=1, gain=3.0)
    assert frozen.dtype == np.float32
    for entry, fan_in in zip(layout, [75, 75, 9, 9], strict=True):
        np.testing.assert_array_equal(np.abs(frozen[entry.slice]), np.float32(3 / np.sqrt(fan_in)))
    assert 0.4 < (frozen > 0).mean() < 0.6
    assert not np.array_equal(frozen, frozen_weights(layout, seed=2, gain=3.0))


def test_a_bias_that_stands_alone_has_fan_in_one():
    assert np.abs(frozen_weights(Layout.of({"shift": (3,)}), 0, gain=2.0)).tolist() == [2.0] * 3


def test_norm_parameters_have_no_mask_and_stay_at_init():
    method = build("fedpm", grouped)
    algorithm = method.init.__self__
    assert [entry.name for entry in algorithm.wire.layout] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    held = method.receive(method.broadcast(method.init(), None), None, None)
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    method.train(held, {}, Data(0, x, np.arange(20) % 3))
    norm = algorithm.flat.model[1]
    assert norm.weight.tolist() == [1.0] * 4
    assert norm.bias.tolist() == [0.0] * 4
    assert method.parameters == sum(p.numel() for p in grouped().parameters())  # they count all the same


def test_a_model_without_weights_is_refused():
    with pytest.raises(ConfigError, match="a model with weights to mask"):
        build("fedpm", lambda: nn.LayerNorm(6))


def test_a_tied_weight_has_one_mask():
    algorithm = build("fedpm", Tied).init.__self__
    assert [entry.name for entry in algorithm.wire.layout] == ["first.weight", "first.bias", "second.bias"]
    model = algorithm.flat.model
    assert model.first.weight is model.second.weight


# rounding θ to the one mask that is shipped --------------------------------------------------------------------------

LAYERS = Layout.of({"conv.weight": (3, 4, 5, 5), "conv.bias": (3,), "fc.weight": (7, 300), "fc.bias": (7,)})


@pytest.fixture
def theta():
    return np.random.default_rng(0).beta(0.3, 0.3, LAYERS.size).astype(np.float32)


def test_a_threshold_and_a_sample_are_what_they_say(theta):
    frozen = frozen_weights(LAYERS, 0, 1.0)
    np.testing.assert_array_equal(round_mask(theta, frozen, LAYERS, "threshold", rng.generator(0)), theta > 0.5)
    mask = round_mask(theta, frozen, LAYERS, "sample", rng.generator(5))
    np.testing.assert_array_equal(mask, rng.generator(5).random(theta.size, dtype=np.float32) < theta)
    assert mask.dtype == np.uint8


def test_diffusion_keeps_every_partial_sum_of_a_unit_near_the_mean_network(theta):
    frozen = frozen_weights(LAYERS, 0, 1.0)
    mask, threshold, sample = (round_mask(theta, frozen, LAYERS, how, rng.generator(0)) for how in ROUNDINGS)
    for entry in LAYERS:
        part, units = entry.slice, entry.shape[0]
        if len(entry.shape) == 1:
            np.testing.assert_array_equal(mask[part], threshold[part])
            continue
        errors = [(frozen[part] * (m[part] - theta[part].astype(float))).reshape(units, -1) for m in (mask, threshold)]
        drifts = [np.abs(error.cumsum(axis=1)).max() for error in errors]  # of any unit, anywhere along its inputs
        # each choice leaves at most (1 + SPREAD) / 2 = π/4 of a weight
        assert drifts[0] <= np.pi / 4 * np.abs(frozen[part]).max() * (1 + 1e-6)
        assert drifts[0] < drifts[1]
    assert not np.array_equal(mask, threshold)
    assert not np.array_equal(mask, sample)


def test_a_settled_mask_is_shipped_as_it_is():
    settled = np.random.default_rng(0).integers(0, 2, LAYERS.size).astype(np.float32)
    for how in ROUNDINGS:
        mask = round_mask(settled, frozen_weights(LAYERS, 0, 1.0), LAYERS, how, rng.generator(0))
        np.testing.assert_array_equal(mask, settled)
