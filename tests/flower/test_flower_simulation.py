"""The same frames and the same model under Flower's own simulation engine."""

import os

import pytest

pytest.importorskip("ray")

from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation
from test_flower_methods import METHODS, experiment, inline, lines, model_bytes, taped

from thinwire.flower import client_app, grid
from thinwire.flower.grid import GridPool

REAL = {"data": "digits", "model": "mlp", "rounds": 2, "clients": 3}


@pytest.fixture
def flower_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH")])))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssfl + m22", "fedavg + fedzip", "fedpm", "pfedpara"])
def test_flower_simulation_has_the_frames_and_the_model_of_one_process(name, tmp_path, flower_home, monkeypatch):
    # On a slow machine a node is asked twice who it is, and Flower's engine may then forget what it has remembered.
    monkeypatch.setattr(grid, "HELLO_SECONDS", 600)
    made = experiment(**{**METHODS[name], **REAL})
    here, expected = taped(made, tmp_path / "here", inline)
    found = []
    server = ServerApp()

    @server.main()
    def main(flower_grid, context):
        found.append(taped(made, tmp_path / "there", lambda a: GridPool(flower_grid, a.run_id, a.clients, made.cohort)))

    run_simulation(server, client_app(made), num_supernodes=3, backend_config={"client_resources": {"num_cpus": 1}})
    ((there, frames),) = found
    assert frames == expected
    assert model_bytes(here) == model_bytes(there)
    assert lines(tmp_path / "here") == lines(tmp_path / "there")
