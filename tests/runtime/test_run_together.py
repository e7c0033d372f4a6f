"""Runs whose clients train together: the same frames' values, states and errors as one client after the other."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest
from toyworld import World, experiment, lines, model_bytes, run

from thinwire.errors import ConfigError, TrainingError
from thinwire.runtime.client import EVALUATE
from thinwire.runtime.run import assemble
from thinwire.runtime.simulate import Simulation
from thinwire.runtime.together import Together

SEVEN = {"load": "toyworld:blobs", "clients": 7}  # of 8 or 9 samples
ROOMY = {"build": "toyworld:roomy"}
FEDZIP = {"id": "fedzip", "keep": 0.3, "error_feedback": True}
TOGETHER = {"local": {"together": True}}


def both(name, **settings):
    """Two equal worlds, whose clients train alone and together."""
    alone, together = World(name, **settings), World(name, **settings)
    together.simulation = Simulation(together.method, Together(together.side), together.clients, 3)
    return alone, together


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fedavg", {}),
        ("fedavg", {"uplink": FEDZIP}),
        ("fedper", {}),
        ("fedpara", {"model": ROOMY}),
        ("pfedpara", {"model": ROOMY, "uplink": {"id": "float16"}}),
    ],
)
def test_the_model_is_that_of_one_client_after_the_other(name, settings):
    alone, together = both(name, data=SEVEN, **settings)
    seen = []
    fit = together.method.train_together
    together.side.method = _with(together.method, lambda group: seen.append(len(group)) or fit(group))
    for _ in range(3):
        one, other = alone.play(), together.play()
        assert (other.clients, other.dropped) == (one.clients, one.dropped) == (7, [])
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)
        np.testing.assert_allclose(
            together.progress.server.weights, alone.progress.server.weights, rtol=1e-3, atol=1e-4
        )
    assert seen == [4, 3] * 3


def _with(method, train_together):
    return replace(method, train_together=train_together)


def test_masks_are_drawn_from_the_same_scores():
    alone, together = both("fedpm", data=SEVEN)
    alone.play(), together.play()
    ours, theirs = (world.progress.server.tally for world in (together, alone))
    assert ours.total == theirs.total == 7
    assert (ours.ones != theirs.ones).mean() < 0.05


def test_answers_come_in_order_and_a_client_alone_trains_alone():
    world = World("fedavg", data={"load": "toyworld:blobs", "clients": 5, "partition": "dirichlet:1.0"})
    sizes = [len(part) for part in world.assembly.parts]
    pool = Together(world.side)
    sending = Simulation(world.method, pool, world.clients, 3).send(world.progress, dict.fromkeys(world.clients))
    answers = list(sending.answers)
    assert [answer.client for answer in answers] == world.clients
    assert len(set(sizes)) > 1
    for answer in answers:
        assert answer.status == "done"
        assert world.method.read(world.progress.server, answer.client, answer.frame).samples == sizes[answer.client]


def test_evaluation_goes_client_by_client():
    alone, together = both("fedavg", data={**SEVEN, "test_fraction": 0.3})
    replies = []
    for world in (alone, together):
        asked = dict.fromkeys(world.clients)
        replies.append([answer.frame for answer in world.simulation.send(world.progress, asked, EVALUATE).answers])
    assert replies[0] == replies[1]


def test_a_loss_that_is_not_finite_names_its_client():
    _, together = both("fedavg")
    data = together.side.data
    together.side.data = lambda client: replace(data(client), x=data(client).x * (np.nan if client == 2 else 1))
    with pytest.raises(TrainingError, match=r"client 2: the loss of the model as it was received is nan in round 1"):
        together.play()


def test_a_broken_client_does_not_keep_the_others_from_training():
    _, together = both("fedavg", data=SEVEN)
    data = together.side.data
    together.side.data = lambda client: data(client) if client != 2 else data(99)
    entry = together.play()
    assert entry.clients == 6
    assert [drop["client"] for drop in entry.dropped] == [2]


def test_a_run_records_how_it_trained_and_repeats(tmp_path):
    run(tmp_path / "a", "fedavg", local={"together": True})
    run(tmp_path / "b", "fedavg", local={"together": True})
    run(tmp_path / "c", "fedavg", local={"together": "auto"})
    used = [tomllib.loads((tmp_path / out / "config.toml").read_text())["local"]["together"] for out in "abc"]
    assert used == [True, True, False]
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")
    assert assemble(experiment("fedavg", **TOGETHER)).run_id == assemble(experiment("fedavg")).run_id


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("fedavg", "batch_norm", "buffers"),
        *((name, "two_layers", "client by client") for name in ("scaffold", "feddyn", "fedprox", "ssfl", "sparsyfed")),
    ],
)
def test_who_cannot_is_refused_before_the_run(name, model, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        assemble(experiment(name, model={"build": f"toyworld:{model}"}, **TOGETHER))
    assert error.value.field == "local.together"


def test_clients_that_train_together_have_one_process(tmp_path):
    with pytest.raises(ConfigError, match="where clients train together"):
        run(tmp_path / "a", "fedavg", workers=2, **TOGETHER)


def test_a_wrong_word_is_refused_with_the_ones_allowed():
    with pytest.raises(ConfigError, match=r"local\.together.*'auto', True or False"):
        experiment("fedavg", local={"together": "always"})
