"""FedPM and FedAvg of the library against their plain numpy versions, round by round."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fedpm_reference import FedAvg, FedPM, frozen, loss_and_gradient

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from toyworld import World, two_layers

SHAPES = [(5, 6), (5,), (3, 5), (3,)]
ROUNDS = 5


class Trace:
    """What every client's training left in the one trainee of the process, and what the server read: by client."""

    def __init__(self, world):
        self.scores, self.masks = {}, {}
        method, masked = world.method, world.method.init.__self__.masked

        def train(held, state, data):
            answer = method.train(held, state, data)
            self.scores[data.client] = masked.trained.clone().numpy()
            return answer

        def read(state, client, frame):
            update = method.read(state, client, frame)
            self.masks[client] = update.value
            return update

        world.simulation.method = world.side.method = replace(method, train=train, read=read)


def parts_of(world):
    return [(d.x.astype(float), d.y) for d in map(world.assembly.client_data, world.clients)]


@pytest.mark.parametrize("straight_through", ["identity", "probability"])
@pytest.mark.parametrize(
    ("fraction", "prior", "epsilon", "sparsity", "epochs"),
    [(1.0, 1.0, 1e-4, 0.0, 2), (0.5, 1.0, 1e-2, 0.0, 1), (0.25, 2.0, 1e-4, 3.0, 1)],
)
def test_fedpm_equals_the_plain_version(straight_through, fraction, prior, epsilon, sparsity, epochs):
    options = {"straight_through": straight_through, "prior": prior, "epsilon": epsilon, "sparsity": sparsity}
    world = World("fedpm", method=options, cohort={"fraction": fraction}, local={"epochs": epochs})
    trace = Trace(world)
    plain = FedPM(SHAPES, parts_of(world), seed=3, fraction=fraction, epochs=epochs, **options)
    total = 0
    for _ in range(ROUNDS):
        trace.masks.clear()
        world.play()
        plain.play()
        tally = world.progress.server.tally
        assert trace.masks.keys() == plain.masks.keys()
        for client, mask in plain.masks.items():
            np.testing.assert_allclose(trace.scores[client], plain.scores[client], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(trace.masks[client], mask)
        np.testing.assert_array_equal(tally.ones, plain.alpha - prior)
        np.testing.assert_allclose(tally.theta(prior), plain.theta, atol=1e-7)
        assert tally.total == plain.alpha[0] + plain.beta[0] - 2 * prior
        total = max(total, tally.total)
    assert total == 4  # between two resets every client has been counted once


def test_frozen_weights_equal_the_plain_version():
    masked = World("fedpm").method.init.__self__.masked
    np.testing.assert_allclose(masked.frozen.numpy(), frozen(SHAPES, 3, np.sqrt(2)), rtol=1e-6)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_fedavg_equals_the_plain_version(fraction):
    world = World("fedavg", cohort={"fraction": fraction}, local={"epochs": 2}, data={"partition": "dirichlet:1.0"})
    start = world.progress.server.weights
    plain = FedAvg(SHAPES, parts_of(world), seed=3, weights=start.astype(float), fraction=fraction, epochs=2)
    assert len({len(y) for _, y in plain.data}) > 1  # the weighting by samples matters
    for _ in range(ROUNDS):
        world.play()
        plain.play()
        np.testing.assert_allclose(world.progress.server.weights, plain.weights, atol=1e-5)
    assert np.abs(plain.weights - start).max() > 0.1


def test_the_plain_gradient_is_that_of_autograd():
    model = two_layers().double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 6)), rng.integers(0, 3, 7)
    loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
    loss.backward()
    w = torch.cat([p.detach().ravel() for p in model.parameters()]).numpy()
    plain_loss, plain_gradient = loss_and_gradient(w, SHAPES, x, y)
    assert plain_loss == pytest.approx(loss.item())
    np.testing.assert_allclose(plain_gradient, torch.cat([p.grad.ravel() for p in model.parameters()]), atol=1e-12)


def test_the_plain_version_uses_nothing_of_ours():
    source = Path(__file__).with_name("fedpm_reference.py").read_text()
    assert "import thinwire" not in source
    assert "from thinwire" not in source
