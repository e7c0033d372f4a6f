"""A population of which only the clients drawn for a round are ever made."""

import numpy as np
import pytest
from test_run_determinism import FEEDBACK, Stop, same, stop_after, summary
from toyworld import World, experiment, lines, run

from thinwire.data.parts import Drawn
from thinwire.runtime.round import _others
from thinwire.runtime.run import assemble, resume

MANY = {"data": {"partition": "drawn:8", "clients": 50_000}, "cohort": {"size": 6}}


@pytest.fixture
def made(monkeypatch):
    """The clients whose samples were drawn, in that order."""
    clients, getitem = [], Drawn.__getitem__
    monkeypatch.setattr(Drawn, "__getitem__", lambda parts, client: clients.append(client) or getitem(parts, client))
    return clients


def test_only_the_clients_of_a_round_are_made(made):
    world = World("fedavg", **MANY)
    assert made == []
    assert len(world.clients) == 50_000
    world.play()
    assert len(set(made)) == len(made) == 6
    assert sorted(world.progress.have) == sorted(world.progress.accepted) == made == sorted(world.progress.records)


def test_a_share_held_back_makes_no_client_either(made):
    assembly = assemble(experiment("fedavg", data={"partition": "drawn:5", "clients": 10**9, "test_fraction": 0.2}))
    assert made == []
    assert assembly.clients == range(10**9)
    assert assembly.held_back(10**9 - 1) == 1


def test_clients_outnumber_the_samples_and_a_run_resumes(tmp_path):
    settings = {**MANY, **FEEDBACK, "rounds": 4, "checkpoint": {"memory_mb": 0}}
    run(tmp_path / "whole", "fedavg", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", workers=2, on_round=stop_after(2), **settings)
    resume(tmp_path / "parts", workers=2)
    same(tmp_path / "whole", tmp_path / "parts")
    assert summary(tmp_path / "whole")["clients"] == 50_000
    assert [line["clients"] for line in lines(tmp_path / "whole")] == [6] * 4


def test_clients_that_are_drawn_score_what_they_hold_back(tmp_path):
    data = {"partition": "drawn:5", "clients": 80, "test_fraction": 0.2}
    run(tmp_path / "run", "fedavg", data=data, cohort={"size": 5}, rounds=2)
    assert summary(tmp_path / "run")["evaluated_clients"] == 80


@pytest.mark.parametrize(
    ("clients", "cohort", "most"), [(10, 3, 2), (100, 10, 95), (50, 50, 3), (20, 1, 19), (9, 4, 0)]
)
def test_more_clients_are_drawn_from_those_not_chosen(clients, cohort, most):
    """The draw from a list of the others, without the list."""
    chosen = sorted(np.random.default_rng(clients).choice(clients, cohort, replace=False).tolist())
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    others = sorted(set(range(clients)) - set(chosen))
    size = min(most, len(others))
    expected = one.choice(others, size=size, replace=False).tolist() if size else []
    assert _others(chosen, clients, most, other) == expected
    assert one.random() == other.random()
