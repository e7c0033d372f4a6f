"""Models with buffers through the pair, end to end: they learn as without it, and no variance gets below 0."""

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from thinapp import Net, run
from torch import nn

from thinwire.flower.dropin import Compressed, compress

NODES = 4
STC = {"id": "stc", "keep": 0.05}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))


def unnamed(state):
    """What Flower's examples of other frameworks send: arrays without names."""
    return ArrayRecord([array.numpy() for array in state.values()])


def restored(net, record):
    arrays = [torch.tensor(array.numpy()) for array in record.values()]
    net.load_state_dict(dict(zip(net.state_dict(), arrays, strict=True)))
    return net


def app(digits, pack=ArrayRecord, mods=()):
    """One epoch of SGD on a node's quarter of the first 1,200 samples."""
    made = ClientApp(mods=list(mods))
    x, y = digits

    @made.train()
    def train(message, context):
        client, net = context.node_config["partition-id"], restored(model(), message.content["arrays"])
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for start in range(300 * client, 300 * (client + 1), 30):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[start : start + 30]), y[start : start + 30]).backward()
            optimiser.step()
        content = {"arrays": pack(net.state_dict()), "metrics": MetricRecord({"num-examples": 300})}
        return Message(RecordDict(content), reply_to=message)

    return made


def train(strategy, digits, pack=ArrayRecord, mods=(), rounds=15):
    """-> accuracy on the samples left over, the lowest variance after each round"""
    lowest, x, y = [], *digits

    def look(round, arrays):
        lowest.append(restored(model(), arrays)[1].running_var.min().item())
        return MetricRecord()

    net = Net(app(digits, pack, mods), NODES)
    result, _ = run(strategy, None, rounds, initial=pack(model().state_dict()), net=net, evaluate_fn=look)
    trained = restored(model(), result.arrays).eval()
    return (trained(x[1200:]).argmax(1) == y[1200:]).float().mean().item(), lowest


def fedavg():
    return FedAvg(fraction_evaluate=0.0)


@pytest.fixture
def plain(digits):
    return train(fedavg(), digits)[0]


def thin(digits, pack=ArrayRecord, codec=STC, feedback=True, **options):
    strategy = Compressed(fedavg(), codec, **options)
    accuracy, lowest = train(strategy, digits, pack, [compress(codec, error_feedback=feedback)])
    assert strategy.dropped == []
    assert len(lowest) == 16
    assert min(lowest) >= 0
    return accuracy


@pytest.mark.parametrize("downlink", [None, STC], ids=["up", "both"])
def test_flower_batch_norm_reaches_what_it_reaches_without_the_pair(digits, plain, downlink):
    assert plain > 0.95
    assert thin(digits, downlink=downlink) > plain - 0.03


def test_flower_batch_norm_without_names_reaches_it_when_its_buffers_are_named(digits, plain):
    assert thin(digits, unnamed, downlink=STC, exact=["4", "5"]) > plain - 0.03


@pytest.mark.parametrize("codec", [STC, "terngrad", {"id": "qsgd", "levels": 1}], ids=str)
@pytest.mark.parametrize("feedback", [True, False])
def test_flower_variance_that_nobody_names_does_not_get_below_zero(digits, codec, feedback):
    """It is coded like a weight, and not well; but it makes no NaN."""
    thin(digits, unnamed, codec, feedback, downlink=codec)
