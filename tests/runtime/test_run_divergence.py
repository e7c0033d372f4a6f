"""A server's model whose loss is not finite: said everywhere, in files that every JSON reader takes."""

import json
import math

import pytest
from test_run_determinism import Stop, stop_after
from toyworld import run

from thinwire import api
from thinwire import compare as suites
from thinwire.compare import FAILURES, reason
from thinwire.errors import DataError
from thinwire.report import read_run, write_report
from thinwire.runtime.evaluation import Score, read_scores, write_scores
from thinwire.runtime.ledger import finite, strict_json
from thinwire.runtime.run import resume

FAR = {"data": {"load": "toyworld:far_test"}, "model": {"build": "toyworld:straight"}, "local": {"lr": 0.9}}


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def strict(text):
    return json.loads(text, parse_constant=refuse)


def ledger(out):
    return [strict(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


def test_a_run_that_diverges_is_whole_and_says_so(tmp_path):
    result = run(tmp_path / "run", "fedavg", **FAR)
    assert result.summary["diverged_in_round"] == 1
    assert strict((result.out / "summary.json").read_text()) == result.summary
    for entry, line in zip(result.rounds, ledger(result.out), strict=True):
        assert entry.diverged
        assert entry.loss is None
        assert line["loss"] is None
        assert 0 <= line["accuracy"] <= 1
    assert (result.out / "model.safetensors").exists()
    shown = read_run(result.out)
    assert shown.summary["diverged_in_round"] == 1
    assert "in round 1" in write_report([result.out], tmp_path / "page.html").read_text()


def test_a_run_that_does_not_diverge_says_that_too(tmp_path):
    result = run(tmp_path / "run", "fedavg", rounds=2)
    assert result.summary["diverged_in_round"] is None
    assert read_run(result.out).summary["diverged_in_round"] is None
    assert not any(entry.diverged for entry in result.rounds)


def test_a_round_that_is_not_scored_has_not_diverged(tmp_path):
    result = run(tmp_path / "run", "fedavg", evaluation={"server_every": 2}, rounds=3, **FAR)
    assert [entry.diverged for entry in result.rounds] == [False, True, True]
    assert result.summary["diverged_in_round"] == 2


def test_a_resumed_run_says_the_same(tmp_path):
    whole = run(tmp_path / "whole", "fedavg", **FAR)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", on_round=stop_after(1), **FAR)
    assert read_run(tmp_path / "parts").summary["diverged_in_round"] == 1
    parts = resume(tmp_path / "parts", workers=1)
    plain = [{**result.summary, "wall_seconds": 0} for result in (whole, parts)]
    assert plain[0] == plain[1]


def test_files_of_before_are_read(tmp_path):
    """They have NaN in the ledger and no word of it in the summary."""
    out = run(tmp_path / "run", "fedavg", **FAR).out
    for path in out.rglob("rounds.jsonl"):
        path.write_text(path.read_text().replace('"loss": null', '"loss": NaN'))
    summary = strict((out / "summary.json").read_text())
    del summary["diverged_in_round"]
    (out / "summary.json").write_text(json.dumps(summary))
    assert read_run(out).summary["diverged_in_round"] == 1


def test_clients_whose_loss_is_not_finite_leave_an_empty_cell(tmp_path):
    write_scores(tmp_path / "clients.csv", [Score(0, 5, 0.5, math.inf), Score(1, 5, 0.75, 0.25)], {0: 9, 1: 9})
    assert (tmp_path / "clients.csv").read_text().splitlines()[1:] == ["0,9,5,0.5,", "1,9,5,0.75,0.25"]
    first, second = read_scores(tmp_path / "clients.csv")
    assert math.isnan(first.loss)
    assert second == Score(1, 5, 0.75, 0.25)


def test_strict_json():
    value = {"a": math.nan, "b": [1.5, -math.inf, (math.inf, 2)], "c": {"d": None, "e": "NaN"}, "f": 10**400}
    assert strict(strict_json(value)) == {
        "a": None, "b": [1.5, None, [None, 2]], "c": {"d": None, "e": "NaN"}, "f": 10**400
    }  # fmt: skip
    assert finite(True) is True


# suites --------------------------------------------------------------------------------------------------------------

SUITE = {
    "rounds": 2, "device": "cpu", "seed": 3, "data": {"load": "toyworld:blobs", "clients": 4},
    "model": {"build": "toyworld:two_layers"},
    "entries": {
        "far": {"method": {"name": "fedavg"}, **FAR},
        "crash": {"method": {"name": "fedavg"}, "model": {"build": "toyworld:fragile"}},
        "floor": {"method": {"name": "fedavg"}},
    },
}  # fmt: skip
SAID = "training diverged in round 1: the loss of the server's model is not finite; lower local.lr"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_suite_goes_on_past_runs_that_diverge_or_crash(tmp_path, jobs):
    rows = suites.compare(SUITE, tmp_path / "suite", workers=1, jobs=jobs)
    far, crash, floor = rows
    assert far["status"] == f"failed: {SAID}"
    assert far["accuracy"] is None
    assert not far["pareto"]
    assert crash["status"] == "failed: IndexError: broken by its own code"
    assert floor["status"] == "done"
    assert floor["pareto"]
    assert strict((tmp_path / "suite" / "compare.json").read_text()) == rows
    again = suites.compare(SUITE, tmp_path / "suite", workers=1)
    assert [row["status"] for row in again] == [row["status"] for row in rows]


def test_a_trial_leaves_out_what_diverges_or_crashes(tmp_path):
    from thinwire import suggest as trials

    (tmp_path / "own.toml").write_text(SUITE_FILE)
    trial = trials.prepare({}, tmp_path / "trial", budget="10MB", candidates=[str(tmp_path / "own.toml")])
    found = trials.play(trial, workers=1)
    failed = {standing.name: standing.score.failed for standing in found.standings}
    assert failed["far"] == SAID
    assert failed["crash"].startswith("IndexError: ")
    assert found.best.name == "floor"
    strict((tmp_path / "trial" / "suggest.json").read_text())


SUITE_FILE = """
rounds = 2
device = "cpu"
seed = 3
data = { load = "toyworld:blobs", clients = 4 }
model = { build = "toyworld:two_layers" }
[entries.far]
method = { name = "fedavg" }
data = { load = "toyworld:far_test", clients = 4 }
model = { build = "toyworld:straight" }
[entries.crash]
method = { name = "fedavg" }
model = { build = "toyworld:fragile" }
[entries.floor]
method = { name = "fedavg" }
"""


def test_a_reason_is_one_line_with_the_type_of_an_error_that_is_not_ours():
    assert reason(DataError("a\n b")) == "a b"
    assert reason(OSError(28, "No space left on device", "x")) == "[Errno 28] No space left on device: 'x'"
    assert reason(KeyError("w")) == "KeyError: 'w'"
    assert reason(MemoryError()) == "MemoryError: "
    assert KeyboardInterrupt not in FAILURES


def test_python_raises_nothing(tmp_path):
    settings = {"data": "toyworld:far_test", "model": "toyworld:straight", "clients": 4, "rounds": 1, "workers": 1}
    result = api.run("fedavg", out=tmp_path / "run", **settings)
    assert result.summary["diverged_in_round"] == 1
    assert (tmp_path / "run" / "report.html").exists()
