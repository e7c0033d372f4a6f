"""SuperNodes killed in mid-round and a SuperLink restarted: the run goes on, and says what was lost."""

import json
import os
import time

import pytest

pytest.importorskip("flwr")

from test_flower_methods import METHODS, experiment

from thinwire.errors import ThinwireError
from thinwire.flower.check import check, write_app
from thinwire.flower.deployment import Deployment
from thinwire.runtime import run as runs

WORLD = {"data": "digits", "model": "mlp", "method": "fedavg", "lr": 0.1, "cohort.round_timeout": 90}


def rounds_of(out):
    ledger = out / "rounds.jsonl"
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def wait_for_round(out, number, run):
    give_up = time.monotonic() + 240
    while len(rounds_of(out)) < number:
        assert time.monotonic() < give_up, run.text()[-3000:]
        time.sleep(0.05)


@pytest.mark.slow
def test_flower_run_outlives_nodes_killed_in_mid_round(tmp_path):
    killed = [int(client) for client in os.environ.get("THINWIRE_TEST_KILLS", "1,3").split(",")]  # one a round
    made = experiment(**{**WORLD, "clients": 4, "rounds": len(killed) + 3, "seed": 1, "local_epochs": 40})  # seconds
    whole = runs.start(made, tmp_path / "whole", workers=1)
    with Deployment(4, tmp_path / "flower") as deployment:
        out = tmp_path / "run"
        run = deployment.submit(write_app(made, tmp_path / "app"), {"out": str(out)})
        for number, client in enumerate(killed, start=1):
            wait_for_round(out, number, run)
            deployment.kill_node(client)
            deployment.start_node(client)  # the SuperLink learns of the loss, and the round need not wait for its time
            wait_for_round(out, number + 1, run)
        run.wait(300)
    rounds = rounds_of(out)
    assert len(rounds) == made.rounds
    drops = {entry["round"]: [drop["client"] for drop in entry["dropped"]] for entry in rounds if entry["dropped"]}
    lost = [client for clients in drops.values() for client in clients]
    assert killed[0] in lost  # later ones may be killed while a round still hears the node that replaces the last
    assert set(lost) <= set(killed)
    assert all(drop["reason"] for entry in rounds for drop in entry["dropped"])
    assert abs(rounds[-1]["accuracy"] - whole.summary["accuracy"]) < 0.03


@pytest.mark.slow
def test_flower_run_goes_on_after_the_superlink_was_restarted_with_the_same_bytes(tmp_path):
    made = experiment(**{**METHODS["fedavg + fedzip"], "data": "digits", "model": "mlp", "clients": 2, "rounds": 4})
    with Deployment(2, tmp_path / "flower", database=tmp_path / "superlink.db") as deployment:
        out = tmp_path / "deployment"
        first = deployment.submit(write_app(made, tmp_path / "app"), {"out": str(out)})
        wait_for_round(out, 2, first)
        deployment.restart_superlink()
        with pytest.raises(ThinwireError):
            first.wait(60)
        assert 2 <= len(rounds_of(out)) < 4
        assert check(made, deployment, tmp_path, 300).differences == ()
