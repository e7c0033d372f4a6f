"""Clients trained side by side, against the training loop of one client as the oracle."""

import numpy as np
import pytest
import torch
from torch import nn
from toyworld import CLASSES, FEATURES, batch_norm, blobs, roomy, tied, two_layers

from thinwire.errors import TrainingError
from thinwire.parameterisations import Dense, FedPara, Masked, PFedPara, frozen_weights, mask_layout, parameterise
from thinwire.parameterisations.mask import MaskedStack
from thinwire.tensors import FlatModel
from thinwire.train import Local, fit
from thinwire.train_together import DenseStack, fit_together, obstacle

CLIENTS, SAMPLES = 4, 11
LOCALS = [
    Local(2, 4, lr=0.1),
    Local(2, 4, lr=0.1, momentum=0.9, weight_decay=0.01),
    Local(1, 100, lr=0.5, clip=0.05),
    Local(2, 4, "adam", lr=0.01, lr_decay=0.5),
]


def samples():
    """Inputs and labels of every client."""
    (x, y), _ = blobs(CLIENTS * SAMPLES)
    return np.split(x, CLIENTS), np.split(y, CLIENTS)


def draws():
    return [np.random.default_rng(client) for client in range(CLIENTS)]


def normed():
    """Normalised over all channels: well-conditioned, unlike a group of two."""
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.GroupNorm(1, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def factored(kind):
    return lambda: parameterise(roomy(), kind, report=None)


def assert_same(found, wanted, local):
    """Equal but for rounding; under Adam, whose step is as long for a gradient of a few last bits, nine tenths are."""
    wrong = (found - wanted).abs() > 1e-4 + 1e-3 * wanted.abs()
    assert not wrong.any() or local.optimizer == "adam"
    assert wrong.float().mean() <= 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=local.lr / 2)


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize(
    "build",
    [two_layers, tied, normed, factored(FedPara(0.5)), factored(FedPara(0.5, keep=False)), factored(PFedPara(0.5))],
)
def test_weights_and_factors_train_as_one_by_one(build, local):
    torch.manual_seed(0)
    flat, (x, y) = FlatModel(build()), samples()
    starts = [flat.parameters + 0.01 * client for client in range(CLIENTS)]
    stack = DenseStack(flat, starts)
    together = fit_together(stack, x, y, local, 2, draws())
    for client, draw in enumerate(draws()):
        flat.parameters.copy_(starts[client])
        alone = fit(Dense(flat), x[client], y[client], local, 2, draw)
        assert (flat.parameters - starts[client]).norm() > 1e-3
        assert_same(stack.trained[client], flat.parameters, local)
        assert together[client] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize(("build", "how"), [(two_layers, ("identity", 0.0)), (normed, ("probability", 0.5))])
def test_masks_train_as_one_by_one(build, how, local):
    torch.manual_seed(0)
    flat, (x, y) = FlatModel(build()), samples()
    masked = Masked(flat, frozen_weights(mask_layout(flat.layout), 3, 2**0.5), *how)
    scores = [
        np.random.default_rng(client).normal(size=masked.frozen.numel()).astype(np.float32) for client in range(4)
    ]
    stack = MaskedStack(masked, scores, seeds=range(CLIENTS))
    together = fit_together(stack, x, y, local, 2, draws())
    for client, draw in enumerate(draws()):
        masked.start(scores[client], seed=client)
        alone = fit(masked, x[client], y[client], local, 2, draw)
        assert (masked.trained - torch.from_numpy(scores[client])).norm() > 1e-3
        assert_same(stack.trained[client], masked.trained, local)
        assert together[client] == pytest.approx(alone, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_training():
    x, y = samples()
    x[2] = np.full_like(x[2], np.nan)
    flat = FlatModel(two_layers())
    with pytest.raises(TrainingError, match="as it was received is nan in round 2, before the first step"):
        fit_together(DenseStack(flat, [flat.parameters] * CLIENTS), x, y, Local(), 2, draws())
    with pytest.raises(
        TrainingError, match=r"loss became (nan|inf) in round 2: lower the learning rate \(lr = 1e\+38\)"
    ):
        fit_together(DenseStack(flat, [flat.parameters] * CLIENTS), *samples(), Local(4, lr=1e38), 2, draws())


def test_a_layer_that_was_built_in_evaluation_mode_is_not_woken():
    model = nn.Sequential(nn.Dropout(0.5), two_layers())
    model[0].eval()
    flat, (x, y) = FlatModel(model), samples()
    fit_together(DenseStack(flat, [flat.parameters] * CLIENTS), x, y, Local(), 1, draws())
    assert [part.training for part in model] == [False, True]


class Branching(nn.Module):
    """Looks at its values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (two_layers, ""),
        (normed, ""),
        (factored(FedPara(0.5)), ""),
        (batch_norm, "buffers"),
        (lambda: nn.Sequential(nn.Dropout(0.5), two_layers()), "random"),
        (Branching, "RuntimeError"),
    ],
)
def test_what_keeps_clients_from_training_together(build, reason):
    (x, y), _ = blobs()
    found = obstacle(build(), x[:2], y[:2])
    assert reason in found
    assert bool(found) == bool(reason)
