"""The pair under Flower's own simulation engine: messages, memory and errors as they really travel."""

import random

import numpy as np
import pytest

pytest.importorskip("ray")

from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from test_flower_dropin_feedback import constant, flat
from thinapp import STC, arrays_of, client_app, linear, same

from thinwire.errors import TrainingError
from thinwire.flower.dropin import Compressed, compress

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]


@pytest.fixture(autouse=True)
def flower_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", "")


def simulate(app, *strategies, rounds=2):
    """One simulation in which the strategies run one after the other. -> what each gave, or the error that it raised"""
    results, server = [], ServerApp()

    @server.main()
    def main(grid, context):
        random.seed(0)
        for strategy in strategies:
            try:
                results.append(strategy.start(grid, linear(), num_rounds=rounds))
            except TrainingError as error:
                results.append(error)

    run_simulation(server, app, num_supernodes=2, backend_config={"client_resources": {"num_cpus": 1}})
    return results


def test_flower_simulation_runs_the_pair():
    lossless, lossy = Compressed(FedAvg(), "float32"), Compressed(FedAvg(), STC, downlink=STC)
    app = client_app([compress(STC)], work=constant)
    refused, thin = simulate(app, lossless, lossy, rounds=4)
    assert isinstance(refused, TrainingError)
    assert "expects" in str(refused)
    assert lossy.dropped == []
    moved = flat(arrays_of(thin.arrays)) - flat(arrays_of(linear()))
    assert np.count_nonzero(moved) > 14  # two nodes, seven entries a round, other ones with error feedback
    up = [metrics["thinwire-up-bytes"] for metrics in thin.train_metrics_clientapp.values()]
    down = [metrics["thinwire-down-bytes"] for metrics in thin.train_metrics_clientapp.values()]
    assert len(set(up)) <= 3
    assert down[0] > 3 * down[1]


def test_flower_simulation_is_the_same_bit_for_bit_with_float32():
    """What one node has changes the sum only by its weight: two nodes, any order."""
    (plain,) = simulate(client_app(), FedAvg())
    (thin,) = simulate(client_app([compress("float32")]), Compressed(FedAvg(), "float32"))
    assert same(plain.arrays, thin.arrays)


def test_flower_simulation_names_the_missing_mod():
    (error,) = simulate(client_app(), Compressed(FedAvg(), STC))
    assert isinstance(error, TrainingError)
    assert "its ClientApp lacks mods=[thinwire.flower.compress(...)]" in str(error)
    assert "\n" not in str(error)
