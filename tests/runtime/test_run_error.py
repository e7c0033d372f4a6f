"""What updates lost on their way: measured by clients, collected by the round, kept in the ledger, said once."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from test_run_round import SIX
from toyworld import Spy, World, run

from thinwire.codecs import Context, Float32, Thin, fidelity, missed, nmse
from thinwire.console import Show
from thinwire.layout import Layout
from thinwire.runtime.ledger import Ledger

THIN = {"uplink": {"id": "thin", "nmse": 0.2}}


def test_the_error_of_arrays():
    assert nmse(np.array([3, 4], np.float32), np.array([3, 0], np.float32)) == pytest.approx(0.64)
    for scale in (1e-45, 1e-30, 1.0, 1e30, 3e38):
        x = np.full(5, scale, np.float32)
        assert nmse(x, x) == 0
        assert nmse(x, np.zeros_like(x)) == 1
        assert nmse(x, -x) == 4
    zeros = np.zeros(3, np.float32)
    assert (nmse(zeros, zeros), nmse(zeros, zeros + 1)) == (0, math.inf)
    assert nmse(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0
    assert math.isnan(nmse(np.array([np.nan, 1], np.float32), np.zeros(2, np.float32)))


def test_codecs_with_a_target_say_whether_it_is_met():
    assert missed(Thin(nmse=0.1), 0.1, 50, 100) == missed(Float32(), 5.0, 50, 100) == ""
    assert missed(Thin(nmse=0.1), 0.2, 50, 100).startswith("thin: nmse 0.2, at most 0.1 wanted")
    assert missed(Thin(bytes=40), 0.2, 41, 100).startswith("thin: bytes 41, at most 40 wanted")
    assert missed(Thin(bits=4), 0.2, 51, 100).startswith("thin: bits 4.08, at most 4 wanted")
    assert missed(Thin(lossless=True), 0.0, 500, 100) == ""


def test_exact_codecs_cost_nothing():
    """Nothing is decoded: the payload is not even one."""
    context, x = Context(Layout.of({"a": (4,)})), np.ones(4, np.float32)
    assert fidelity(Float32(), x, b"", context) == fidelity(Thin(lossless=True), x, b"", context) == {"nmse": 0.0}


@pytest.mark.parametrize("feedback", [False, True])
def test_the_ledger_has_what_the_updates_lost(feedback):
    world = World("fedavg", data=SIX, cohort={"fraction": 1.0}, uplink=THIN["uplink"] | {"error_feedback": feedback})
    for _ in range(2):
        entry = world.play()
        assert 0 < entry.nmse <= entry.worst_nmse <= 0.2
        assert entry.missed == 0
    exact = World("fedavg", data=SIX).play()
    assert (exact.nmse, exact.worst_nmse, exact.missed) == (0, 0, None)
    masks = World("fedpm", data=SIX).play()
    assert (masks.nmse, masks.worst_nmse, masks.missed) == (None, None, None)


@pytest.mark.parametrize("said", [math.nan, math.inf, -1.0, None, "0.1", [], {"a": 1}, 10**400])
def test_what_a_node_says_of_its_error_costs_it_nothing_and_does_not_enter(said):
    """A client's numbers come from outside: the update counts, a number that is none is left out."""

    def lying(answer):
        if answer.client != 1:
            return answer
        return replace(answer, metrics=answer.metrics | {"nmse": said, "missed": said})

    honest = World("fedavg", data=SIX, **THIN).play()
    entry = World("fedavg", lambda pool: Spy(pool, lying), data=SIX, **THIN).play()
    assert entry.clients == honest.clients == 6
    assert entry.dropped == []
    assert math.isfinite(entry.nmse)
    assert entry.worst_nmse <= 0.2
    assert json.loads(entry.line(), parse_constant=pytest.fail)["missed"] == 0


def test_a_ledger_of_before_is_readable(tmp_path):
    run(tmp_path / "run", "fedavg", rounds=2, **THIN)
    now = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert all(0 < line["nmse"] <= line["worst_nmse"] <= 0.2 for line in now)
    fields = ("nmse", "worst_nmse", "missed")
    before = [{key: value for key, value in line.items() if key not in fields} for line in now]
    data = "".join(json.dumps(line) + "\n" for line in before).encode()
    (tmp_path / "old").write_bytes(data)
    ledger = Ledger.reopen(tmp_path / "old", tmp_path / "copy" / "old", {"bytes": len(data)})
    assert [(entry.round, entry.nmse, entry.missed) for entry in ledger.rounds] == [(1, None, None), (2, None, None)]


def test_a_missed_target_is_said_once(capsys):
    world = World("fedavg", data=SIX, uplink={"id": "thin", "bytes": 1})
    with Show(3, "") as show:
        for _ in range(3):
            show.round(world.play(), 3)
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("warning: round 1: 6 of 6 updates missed the target of the uplink codec, largest error 0.") == 1
    assert told.count("warning") == 1
    assert told.count(" bpp error 0.8") == 3
