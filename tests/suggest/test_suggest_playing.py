"""Trials on toy data: what they measure is what the ledgers say, what was stopped goes on, nothing starts anew."""

import json
import tomllib

import pytest
import toyworld

from thinwire.api import execute
from thinwire.errors import ConfigError, ThinwireError
from thinwire.runtime.experiment import parse, read_file
from thinwire.suggest import suggest

TOY = {"data": "toyworld:blobs", "model": "toyworld:two_layers", "clients": 3, "batch_size": 8, "workers": 1}
LINK = {"link": {"up_mbps": 0.01, "down_mbps": 0.05, "latency_ms": 20}}


def trial(out, suite, budget="1MB", rounds=8, **more):
    return suggest(out=out, budget=budget, candidates=[suite], rounds=rounds, **TOY, **more)


class Seen:
    """The rounds that are shown, (candidate, round) in order; stops after one of them, if told so."""

    def __init__(self, stop=None):
        self.rounds, self.stop = [], stop

    def __call__(self, name, entry, rounds):
        assert rounds == 8
        self.rounds.append((name, entry.round))
        if (name, entry.round) == self.stop:
            raise KeyboardInterrupt


def test_the_best_within_the_budget(tmp_path, suite):
    seen = Seen()
    found = trial(tmp_path, suite, on_round=seen)
    assert found.trial.limits == [1, 2, 4, 8]
    assert len(seen.rounds) == len(set(seen.rounds)) == 4 + 2 + 2 + 4  # every round of a run is played once
    names = [standing.name for standing in found.standings]
    assert sorted(names) == ["floor", "half", "masks", "thin"]
    for standing in found.standings:
        rows = toyworld.lines(tmp_path / standing.name)
        assert len(rows) == standing.score.played
        assert standing.score.accuracy == max(row["accuracy"] for row in rows)
        best = rows[standing.score.round - 1]
        assert (best["accuracy"], best["total_bytes"]) == (standing.score.accuracy, standing.score.bytes)
    assert sorted(standing.left or 9 for standing in found.standings) == [1, 1, 2, 9]
    assert (tmp_path / found.best.name / "summary.json").exists()
    assert not (tmp_path / names[-1] / "summary.json").exists()


def test_what_a_budget_ends_keeps_its_score(tmp_path, suite):
    whole = trial(tmp_path / "whole", suite)
    rows = toyworld.lines(tmp_path / "whole" / whole.best.name)
    amount = rows[2]["total_bytes"]
    found = trial(tmp_path / "tight", suite, budget=str(amount))
    for standing in found.standings:
        ledger = toyworld.lines(tmp_path / "tight" / standing.name)
        over = [row["round"] for row in ledger if row["total_bytes"] > amount]
        assert over in ([], [len(ledger)])  # one round too many, and not another
        within = [row["accuracy"] for row in ledger if row["total_bytes"] <= amount]
        assert standing.score.accuracy == max(within, default=None)
    assert all(point["bytes"] <= amount for point in found.curve)


def test_a_larger_budget_goes_on_with_the_same_runs(tmp_path, suite):
    trial(tmp_path / "a", suite, budget="2kB")
    before = {path.parent.name: path.read_bytes() for path in (tmp_path / "a").glob("*/rounds.jsonl")}
    found = trial(tmp_path / "a", suite)
    for name, text in before.items():
        assert (tmp_path / "a" / name / "rounds.jsonl").read_bytes().startswith(text)
    assert found.as_dict() == trial(tmp_path / "b", suite).as_dict()


def test_what_was_stopped_goes_on_with_the_bytes_of_the_unbroken_trial(tmp_path, suite):
    whole = trial(tmp_path / "whole", suite, on_round=(unbroken := Seen()))
    for number in (0, 2, 5, -1):  # in the first rung, between rungs, in a run that goes on, after the last round
        out, stop = tmp_path / str(number), unbroken.rounds[number]
        with pytest.raises(KeyboardInterrupt):
            trial(out, suite, on_round=(first := Seen(stop)))
        found = trial(out, suite, on_round=(second := Seen()))
        assert first.rounds + second.rounds == unbroken.rounds
        assert found.as_dict() == whole.as_dict()
        for standing in whole.standings:
            assert toyworld.lines(tmp_path / "whole" / standing.name) == toyworld.lines(out / standing.name)
    assert trial(out, suite, on_round=(third := Seen())).as_dict() == whole.as_dict()
    assert not third.rounds


def test_a_run_in_rungs_is_the_unbroken_run(tmp_path, suite):
    found = trial(tmp_path / "rungs", suite)
    name = found.best.name
    execute(found.trial.runs[name].experiment, tmp_path / "whole", workers=1)
    assert toyworld.lines(tmp_path / "whole") == toyworld.lines(tmp_path / "rungs" / name)
    assert toyworld.model_bytes(tmp_path / "whole") == toyworld.model_bytes(tmp_path / "rungs" / name)


def test_the_suggested_experiment_repeats_what_was_measured(tmp_path, suite):
    found = trial(tmp_path, suite, seed=4, lr=0.3)
    text = (tmp_path / "suggested.toml").read_text()
    assert text.startswith(f"# suggested for 1.00 MB: {found.best.name}, ")
    assert tomllib.loads(text) == found.settings
    result = execute(parse(read_file(tmp_path / "suggested.toml")), tmp_path / "again", workers=1)
    last = result.rounds[-1]
    score = found.best.score
    assert (last.round, last.accuracy, last.total_bytes) == (score.round, score.accuracy, score.bytes)


def test_what_it_leaves(tmp_path, suite):
    found = trial(tmp_path, suite)
    written = json.loads((tmp_path / "suggest.json").read_text())
    assert written == json.loads(json.dumps(found.as_dict()))
    assert written["budget"] == {"amount": 1e6, "unit": "bytes"}
    assert [candidate["name"] for candidate in written["candidates"]] == [s.name for s in found.standings]
    rows = toyworld.lines(tmp_path / found.best.name)
    curve = written["suggested"]["curve"]
    assert [(point["round"], point["bytes"]) for point in curve] == [(row["round"], row["total_bytes"]) for row in rows]
    page = (tmp_path / "suggest.md").read_text()
    assert "One seed and short runs" in page
    assert all(f"| {standing.name} |" in page for standing in found.standings)
    assert (tmp_path / "suggested.toml").read_text() in page
    report = (tmp_path / "report.html").read_text()
    assert all(standing.name in report for standing in found.standings)


def test_seconds_over_links(tmp_path, suite):
    whole = trial(tmp_path / "whole", suite, **LINK)
    rows = toyworld.lines(tmp_path / "whole" / whole.best.name)
    seconds = sum(row["link_seconds"] for row in rows[:3]) + 1e-6
    found = trial(tmp_path / "a", suite, budget=None, deadline=f"{seconds:.6f}", **LINK)
    for standing in found.standings:
        ledger = toyworld.lines(tmp_path / "a" / standing.name)
        spent = [sum(row["link_seconds"] for row in ledger[: n + 1]) for n in range(len(ledger))]
        assert standing.score.cost in spent
        assert standing.score.cost <= seconds
        assert standing.score.bytes == ledger[spent.index(standing.score.cost)]["total_bytes"]


def test_a_budget_below_everyones_first_round_names_the_cheapest(tmp_path, suite):
    with pytest.raises(ConfigError) as caught:
        trial(tmp_path, suite, budget="20")
    first = {
        path.parent.name: toyworld.lines(path.parent)[0]["total_bytes"] for path in tmp_path.glob("*/rounds.jsonl")
    }
    assert len(first) == 4
    cheapest = min(first, key=first.get)
    expected = f"budget = '20 B': at least {first[cheapest]} B, which is what {cheapest} takes in its first round"
    assert str(caught.value) == expected
    assert not (tmp_path / "suggested.toml").exists()


WILD = "\n[entries.wild]\nmethod = { name = 'fedavg' }\nlocal = { lr = 9e5, weight_decay = 9e5, epochs = 9 }\n"


def test_one_that_fails_leaves_the_others_alone(tmp_path, suite):
    with open(suite, "a") as file:
        file.write(WILD)
    found = trial(tmp_path, suite)
    assert found.standings[-1].name == "wild"
    assert found.standings[-1].score.failed.startswith("client 0: loss became")
    assert found.best.score.accuracy > 0.3


def test_when_all_fail_there_is_nothing_to_suggest(tmp_path):
    (tmp_path / "wild.toml").write_text(WILD)
    with pytest.raises(ThinwireError, match="no candidate could be trained; wild: client 0: loss became"):
        trial(tmp_path / "out", str(tmp_path / "wild.toml"))
