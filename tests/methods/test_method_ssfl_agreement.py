"""On real data: a mask from coded saliencies is the mask from float32 ones, and travels at its entropy."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import parse

HERE = Path(os.environ.get("THINWIRE_DATA") or Path(__file__).parents[3] / "shared" / "data")
CASES = {"mnist": ("lenet", 32), "cifar10": ("cnn-gn", 16)}
densities = pytest.mark.parametrize("density", [0.1, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.05, 0.5))])
real = pytest.mark.parametrize("data", CASES)


@pytest.fixture(autouse=True)
def real_data(monkeypatch):
    """Where the loader looks."""
    monkeypatch.setenv("THINWIRE_DATA", str(HERE))


@cache
def dealt(data):
    """The data, loaded once."""
    if not (HERE / data).exists():
        pytest.skip(f"no {data} under $THINWIRE_DATA")
    return assemble(experiment(data, 32, 0.1))


def experiment(data, bits, density):
    model, batch = CASES[data]
    settings = {"name": "ssfl", "saliency_bits": bits, "density": density}
    parts = {"name": data, "clients": 10, "partition": "dirichlet:0.3"}
    return parse({"data": parts, "model": {"name": model}, "local": {"batch_size": batch}, "method": settings})


@cache
def masks(data, density):
    """States by the bits of the saliencies, the method behind them, and the bytes of a saliency frame."""
    found, sizes = {}, {}
    for bits in (32, 8, 4):
        assembly = replace(dealt(data), experiment=experiment(data, bits, density))
        method = assembly.method
        state = method.init()
        held = method.receive(method.broadcast(state, None), None, None)
        sent = [method.train(held, {}, assembly.client_data(client))[0] for client in assembly.clients]
        state = method.merge(state, [method.read(state, i, frame) for i, frame in enumerate(sent)])
        found[bits], sizes[bits] = state, np.mean([len(frame) for frame in sent])
    return found, method, sizes


@real
@densities
def test_coded_saliencies_choose_the_same_weights(data, density):
    found, method, sizes = masks(data, density)
    places = method.init.__self__.places
    exact = found[32].mask[places]
    for bits, least in ((8, 0.99), (4, 0.95)):
        assert (exact & found[bits].mask[places]).sum() >= least * exact.sum()
        assert 8 * sizes[bits] < bits * exact.size


@real
@densities
def test_the_mask_travels_at_its_entropy(data, density):
    found, method, _ = masks(data, density)
    algorithm, mask = method.init.__self__, found[32].mask
    entropy, chosen = 0.0, mask[algorithm.places]
    for entry in algorithm.weights:
        ones = chosen[entry.slice].mean()
        entropy -= entry.size * sum(p * np.log2(p) for p in (ones, 1 - ones) if p > 0)
    frame = method.broadcast(found[32], 0)
    assert len(frame) <= 1.01 * entropy / 8 + 200
    pooled = chosen.mean()
    assert entropy <= chosen.size * -sum(p * np.log2(p) for p in (pooled, 1 - pooled))
