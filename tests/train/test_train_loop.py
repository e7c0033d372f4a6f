"""The one training loop and the one evaluation loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toyworld import FEATURES, batch_norm, blobs, two_layers

from thinwire.errors import TrainingError
from thinwire.parameterisations import Dense
from thinwire.tensors import FlatModel
from thinwire.train import Local, batches, evaluate, fit, obstacle_alone, optimizer, token_loss


def test_batches_cover_every_sample_once_an_epoch_in_a_new_order():
    parts = list(batches(10, Local(epochs=3, batch_size=4), np.random.default_rng(0)))
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    epochs = [np.concatenate(parts[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("epochs", "size", "steps"), [(1, 60, 1), (1, 1000, 1), (2, 7, 18)])
def test_a_batch_may_be_larger_than_the_data(epochs, size, steps):
    (x, y), _ = blobs()
    metrics = fit(Dense(FlatModel(two_layers())), x, y, Local(epochs, size), 1, np.random.default_rng(0))
    assert metrics["steps"] == steps
    assert 0 < metrics["loss"] < 10


def test_the_learning_rate_decays_from_round_to_round():
    local = Local(lr=0.8, lr_decay=0.5)
    assert [local.rate(round) for round in (1, 2, 3)] == [0.8, 0.4, 0.2]


@pytest.mark.parametrize(
    ("local", "plain"),
    [
        (Local(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (Local(lr=0.1, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01)),
        (Local(lr=0.01, optimizer="adam"), lambda p: torch.optim.Adam(p, lr=0.01)),
    ],
)
def test_training_the_flat_tensor_is_training_the_model(local, plain):
    (x, y), _ = blobs()
    local = Local(2, 16, local.optimizer, local.lr, local.momentum, local.weight_decay)
    torch.manual_seed(0)
    ours, theirs = two_layers(), two_layers()
    theirs.load_state_dict(ours.state_dict())
    fit(Dense(FlatModel(ours)), x, y, local, 1, np.random.default_rng(5))
    solver = plain(theirs.parameters())
    for index in batches(len(y), local, np.random.default_rng(5)):
        solver.zero_grad()
        nn.functional.cross_entropy(theirs(torch.from_numpy(x[index])), torch.from_numpy(y[index])).backward()
        solver.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("clip", [1e-2, 1e3])
def test_a_longer_gradient_is_cut_back_to_the_clip(clip):
    (x, y), _ = blobs()
    steps = []
    for local in (Local(1, 1000, lr=0.1), Local(1, 1000, lr=0.1, clip=clip)):
        torch.manual_seed(0)
        trainee = Dense(FlatModel(two_layers()))
        start = trainee.trained.detach().clone()
        fit(trainee, x, y, local, 1, np.random.default_rng(0))
        steps.append(trainee.trained.detach() - start)
    step, cut = steps
    torch.testing.assert_close(cut, step * min(1.0, 0.1 * clip / float(step.norm())), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", [1, 7, 64, 7850])
@pytest.mark.parametrize(
    ("local", "theirs"),
    [
        (Local(lr=0.3), lambda p: torch.optim.SGD(p, 0.15, fused=True)),
        (Local(lr=0.3, momentum=0.9), lambda p: torch.optim.SGD(p, 0.15, momentum=0.9, fused=True)),
        (Local(lr=0.3, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.15, weight_decay=0.1, fused=True)),
        (
            Local(lr=0.3, optimizer="adam", weight_decay=0.1),
            lambda p: torch.optim.Adam(p, 0.15, weight_decay=0.1, fused=True),
        ),
    ],
)
def test_a_step_is_that_of_torch_bit_for_bit_and_each_optimizer_is_fresh(local, theirs, size):
    local, draw = replace(local, lr_decay=0.5), torch.Generator().manual_seed(size)
    for _ in range(2):
        ours, plain = torch.randn(size, generator=draw), torch.empty(size)
        plain.copy_(ours)
        ours.grad, plain.grad = torch.empty(size), torch.empty(size)
        step, solver = optimizer(ours, local, 2), theirs([plain])
        for _ in range(5):
            gradient = torch.randn(size, generator=draw) * 10.0 ** torch.randint(-6, 3, (size,), generator=draw)
            ours.grad.copy_(gradient), plain.grad.copy_(gradient)
            step(), solver.step()
            assert torch.equal(ours, plain)


RECEIVED = r"the loss of the model as it was received is nan in round {}, before the first step: check the samples"
LOWER = r"lower the learning rate \(lr = {}\)"


@pytest.mark.parametrize(
    ("value", "rate", "round", "said"),
    [
        (1.0, 1e38, 2, rf"^loss became (inf|nan) in round 2: {LOWER.format('1e.38')}$"),
        (np.nan, 0.05, 1, rf"^{RECEIVED.format(1)}$"),
        (np.nan, 0.05, 2, rf"^{RECEIVED.format(2)}, or {LOWER.format(0.05)} or the server's$"),
    ],
)
def test_a_loss_that_is_not_finite_stops_training_with_its_cause(value, rate, round, said):
    (x, y), _ = blobs()
    with pytest.raises(TrainingError, match=said):
        fit(Dense(FlatModel(two_layers())), value * x, y, Local(2, lr=rate), round, np.random.default_rng(0))


def test_training_mode_and_evaluation_mode():
    model = nn.Sequential(nn.Dropout(0.5), two_layers())
    (x, y), _ = blobs()
    modes = []
    model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    fit(Dense(FlatModel(model)), x, y, Local(batch_size=60), 1, np.random.default_rng(0))
    evaluate(model, x, y)
    assert modes == [True, False]


def test_a_layer_that_was_built_in_evaluation_mode_is_not_woken():
    model = nn.Sequential(nn.BatchNorm1d(FEATURES), two_layers())
    model[0].eval()
    (x, y), _ = blobs()
    assert obstacle_alone(model, x[:1], y[:1]) == ""
    flat = FlatModel(model)
    evaluate(model, x, y)
    flat.reset()
    fit(Dense(flat), x, y, Local(), 1, np.random.default_rng(0))
    assert [part.training for part in model] == [False, True]
    assert not model[0].running_mean.any()


def test_what_keeps_a_model_from_training_on_one_sample():
    (x, y), _ = blobs()
    assert obstacle_alone(two_layers().eval(), x[:1], y[:1]) == ""
    assert "more than 1 value per channel" in obstacle_alone(batch_norm().eval(), x[:1], y[:1])


def test_evaluate_is_the_mean_over_all_samples_whatever_the_batches():
    torch.manual_seed(0)
    (x, y), _ = blobs()
    model = two_layers()
    whole = evaluate(model, x, y)
    with torch.no_grad():
        logits = model(torch.from_numpy(x))
    assert whole["accuracy"] == (logits.argmax(1).numpy() == y).mean()
    assert whole["loss"] == pytest.approx(nn.functional.cross_entropy(logits, torch.from_numpy(y)).item(), rel=1e-5)
    for size in (1, 7, 59):
        assert evaluate(model, x, y, batch_size=size)["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert evaluate(model, x, y, batch_size=size)["accuracy"] == whole["accuracy"]


def test_text_is_scored_token_by_token():
    logits = torch.randn(4, 6, 9, generator=torch.manual_seed(0))  # (batch, positions, characters)
    y = torch.arange(24).reshape(4, 6) % 9
    expected = nn.functional.cross_entropy(logits.permute(0, 2, 1), y)
    torch.testing.assert_close(token_loss(logits, y), expected)

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([0.0, 5.0, 1.0]))

        def forward(self, x):
            return self.logits.expand(*x.shape, 3)

    tokens = np.array([[1, 1, 0], [2, 1, 0]])
    assert evaluate(Constant(), tokens, tokens)["accuracy"] == 0.5
