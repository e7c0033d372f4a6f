"""The same frames and the same model over a SuperLink and SuperNodes with TLS as in one process."""

import pytest

pytest.importorskip("flwr")

from test_flower_methods import METHODS, experiment

from thinwire.flower.check import check
from thinwire.flower.deployment import Deployment

REAL = {"data": "digits", "model": "mlp", "rounds": 2, "clients": 3}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with Deployment(3, tmp_path_factory.mktemp("flower")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssfl + m22", "fedavg + fedzip", "fedpm", "pfedpara"])
def test_flower_deployment_has_the_frames_and_the_model_of_one_process(name, tmp_path, deployment):
    found = check(experiment(**{**METHODS[name], **REAL}), deployment, tmp_path, 300)
    assert found.differences == ()
    assert found.frames >= 4
