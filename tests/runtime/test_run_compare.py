"""Suites: the numbers of the table by hand, seeds, runs side by side, runs that fail, ledgers that cannot be read."""

import csv
import io
import json
import math
import os
import signal

import pytest

from thinwire import compare as suites
from thinwire.compare import jobs as side
from thinwire.compare import playing
from thinwire.compare.measures import columns, interval, mean, measure, pareto
from thinwire.compare.suite import check, plan
from thinwire.errors import ConfigError, DataError, TrainingError
from thinwire.machine import cores
from thinwire.report import Run

SUITE = {
    "rounds": 2, "device": "cpu", "data": {"load": "toyworld:blobs", "clients": 4},
    "model": {"build": "toyworld:two_layers"},
    "entries": {"plain": {"method": {"name": "fedavg"}}, "masks": {"method": {"name": "fedpm"}}},
}  # fmt: skip
DIVERGES = {"method": {"name": "fedavg"}, "local": {"lr": 9e5, "weight_decay": 9e5, "batch_size": 1}}
TIMES = ("client_decode_seconds", "client_train_seconds", "server_encode_seconds", "server_decode_seconds")


def timeless(rows):
    return [{key: value for key, value in row.items() if key not in (*TIMES, "wall_seconds")} for row in rows]


def rounds(folder):
    """rounds.jsonl without the seconds."""
    found = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def files(out):
    """Every ledger and model of a suite's runs."""
    models = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("model.*")}
    return models | {str(path.parent.relative_to(out)): rounds(path.parent) for path in out.rglob("rounds.jsonl")}


def never(reason):
    raise AssertionError(reason)


# numbers by hand -----------------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    assert interval([0.90, 0.94, 0.92]) == pytest.approx(4.302652730 * 0.02 / math.sqrt(3))
    assert interval([0.9, 0.92]) == pytest.approx(12.70620474 * 0.02 / 2)
    assert interval([0.5, 0.5, 0.5, 0.5]) == 0
    assert interval([0.9]) is interval([]) is interval([0.9, None, 0.8]) is None


def test_a_mean_is_that_of_all_or_there_is_none():
    assert mean([1, 2, 6]) == 3
    assert mean([7]) == 7
    assert isinstance(mean([7]), int)
    assert mean([]) is mean([1, None]) is None


def test_the_front():
    points = [(0.9, 100), (0.9, 150), (0.95, 200), (0.8, 50), (0.8, 60), None, (0.9, 100), (0.95, 201), (0.1, 49)]
    assert pareto(points) == [True, False, True, True, False, False, True, False, True]
    assert pareto([None]) == [False]


def finished(**summary):
    """A run of four rounds."""
    parts = zip((0.5, 0.9, 0.8, 0.95), (100, 220, 350, 500), (1.0, 2.0, 4.0, 8.0), strict=True)
    lines = [
        {
            "round": number, "accuracy": accuracy, "total_bytes": total, "link_seconds": link,
            "seconds": {"client_train": 2.0 * number, "server_decode": 0.5, "evaluate": 9.0},
        }
        for number, (accuracy, total, link) in enumerate(parts, 1)
    ]  # fmt: skip
    known = {
        "accuracy": 0.95, "best_accuracy": 0.95, "model_accuracy": 0.94, "up_bytes": 200, "down_bytes": 250,
        "evaluate_bytes": 50, "mean_up_bpp": 0.5, "mean_down_bpp": 1.5, "wall_seconds": 7.0, "link_seconds": 15.0,
        "initial_accuracy": 0.1,
    }  # fmt: skip
    return Run(None, "", known | summary, lines)


def test_the_numbers_of_a_run():
    found = measure(finished(), (0.9, 0.5, 0.96))
    assert list(found) == columns((0.9, 0.5, 0.96))
    assert found["total_bytes"] == 500
    assert (found["up_ratio"], found["total_ratio"]) == (64, 32)
    assert (found["bytes_to_0.9"], found["bytes_to_0.5"], found["bytes_to_0.96"]) == (220, 100, None)
    assert (found["seconds_to_0.9"], found["seconds_to_0.5"], found["seconds_to_0.96"]) == (3.0, 1.0, None)
    assert found["accuracy_per_gbit"] == pytest.approx(1e9 * 0.85 / 1600)
    assert (found["client_train_seconds"], found["server_decode_seconds"]) == (20.0, 2.0)
    assert found["client_decode_seconds"] is None
    assert (found["wall_seconds"], found["link_seconds"], found["personal_accuracy"]) == (7.0, 15.0, None)


def test_what_a_summary_of_before_lacks_is_empty():
    found = measure(finished(initial_accuracy=None, link_seconds=None, mean_up_bpp=None), (0.9,))
    assert found["accuracy_per_gbit"] is found["link_seconds"] is found["up_ratio"] is found["total_ratio"] is None
    assert found["accuracy"] == 0.95


# the table -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [{}, {"plain": {"test_fraction": 0.3}}])
def test_personal_accuracy_has_a_column_where_an_entry_has_it(tmp_path, held):
    entries = {name: {**entry, "data": held.get(name, {})} for name, entry in SUITE["entries"].items()}
    rows = suites.compare({**SUITE, "rounds": 1, "entries": entries}, tmp_path / "out", workers=1)
    assert [row.get("personal_accuracy") is not None for row in rows] == [bool(held), False]
    assert ("personal" in suites.headers(rows)) == ("personal_accuracy" in rows[0]) == bool(held)
    assert {len(line) for line in suites.as_text(rows)} == {len(suites.headers(rows))}
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        table = list(csv.DictReader(io.StringIO(file.read())))
    assert ("personal_accuracy" in table[0]) == bool(held)
    if held:
        assert suites.as_text(rows)[1][suites.headers(rows).index("personal")] == "–"
        assert float(table[0]["personal_accuracy"]) == rows[0]["personal_accuracy"]


def test_seeds_are_runs_of_their_own_and_a_row_is_their_mean(tmp_path):
    link = {"up_mbps": 1, "down_mbps": 5, "latency_ms": 30}
    suite = {**SUITE, "seeds": [3, 5, 8], "targets": [0.05, 1.0], "link": link}
    rows = suites.compare(suite, tmp_path / "out", workers=1)
    assert sorted(path.name for path in (tmp_path / "out" / "plain").iterdir() if path.is_dir()) == [
        "seed-3", "seed-5", "seed-8",
    ]  # fmt: skip
    summaries = [json.loads((tmp_path / f"out/plain/seed-{seed}/summary.json").read_text()) for seed in (3, 5, 8)]
    ledgers = [rounds(tmp_path / f"out/plain/seed-{seed}") for seed in (3, 5, 8)]
    row = rows[0]
    assert (row["entry"], row["method"], row["seeds"], row["status"]) == ("plain", "fedavg", 3, "done")
    accuracies = [summary["accuracy"] for summary in summaries]
    assert len(set(accuracies)) > 1
    assert row["accuracy"] == pytest.approx(sum(accuracies) / 3)
    deviations = sum((accuracy - row["accuracy"]) ** 2 for accuracy in accuracies)
    assert row["accuracy_ci95"] == pytest.approx(4.302652730 * math.sqrt(deviations / 2 / 3))
    assert row["total_bytes"] == pytest.approx(sum(ledger[-1]["total_bytes"] for ledger in ledgers) / 3)
    first = [next(line for line in ledger if line["accuracy"] >= 0.05) for ledger in ledgers]
    assert row["bytes_to_0.05"] == pytest.approx(sum(line["total_bytes"] for line in first) / 3)
    spent = [
        sum(line["link_seconds"] for line in ledger[: f["round"]]) for ledger, f in zip(ledgers, first, strict=True)
    ]
    assert row["seconds_to_0.05"] == pytest.approx(sum(spent) / 3)
    assert row["bytes_to_1"] is row["seconds_to_1"] is None
    gains = [(s["accuracy"] - s["initial_accuracy"]) / (8 * s["up_bytes"]) for s in summaries]
    assert row["accuracy_per_gbit"] == pytest.approx(1e9 * sum(gains) / 3)
    assert "±" in suites.as_text(rows)[0][2]


def test_a_target_that_one_seed_misses_has_no_mean(tmp_path):
    found = suites.compare({**SUITE, "seeds": [3, 5, 8]}, tmp_path / "out", workers=1)
    best = [max(row["accuracy"] for row in rounds(tmp_path / f"out/plain/seed-{seed}")) for seed in (3, 5, 8)]
    assert min(best) < max(best)
    again = suites.compare({**SUITE, "seeds": [3, 5, 8], "targets": [min(best), max(best)]}, tmp_path / "out")
    assert again[0][f"bytes_to_{min(best):.12g}"] is not None
    assert again[0][f"bytes_to_{max(best):.12g}"] is None
    assert timeless([{k: v for k, v in row.items() if not k.startswith("bytes_to")} for row in again]) == timeless(
        found
    )


def test_one_seed_has_no_interval_and_its_directory_of_before(tmp_path):
    rows = suites.compare(SUITE, tmp_path / "out", workers=1)
    assert not [key for key in rows[0] if key.endswith("_ci95")]
    assert (tmp_path / "out" / "plain" / "summary.json").exists()
    assert (tmp_path / "out" / "plain.toml").exists()
    alone = suites.compare({**SUITE, "seeds": [0]}, tmp_path / "other", workers=1)
    assert (tmp_path / "other" / "plain" / "seed-0" / "summary.json").exists()
    assert timeless(alone) == timeless(rows)


def test_a_further_seed_leaves_those_that_are_done(tmp_path):
    suites.compare({**SUITE, "seeds": [0]}, tmp_path / "out", workers=1)
    seen = []
    suites.compare(
        {**SUITE, "seeds": [0, 1]}, tmp_path / "out", workers=1, on_round=lambda name, entry, _: seen.append(name)
    )
    assert seen == ["plain/seed-1"] * 2 + ["masks/seed-1"] * 2


def test_rows_on_the_front_are_marked(tmp_path):
    suite = {**SUITE, "entries": {**SUITE["entries"], "same": {"method": {"name": "fedavg"}}, "wild": DIVERGES}}
    rows = suites.compare(suite, tmp_path / "out", workers=1)
    plain, masks, same, wild = rows
    better = masks["accuracy"] >= plain["accuracy"]
    assert masks["total_bytes"] < plain["total_bytes"]
    assert [row["pareto"] for row in rows] == [not better, True, not better, False]
    assert plain["pareto"] == same["pareto"]
    assert [line[1] for line in suites.as_text(rows)] == ["" if better else "*", "*", "" if better else "*", "failed"]
    text = (tmp_path / "out" / "compare.md").read_text()
    assert text.count("| masks | * |") == 1
    assert wild["status"] in text


# runs that fail ------------------------------------------------------------------------------------------------------


def test_a_run_that_fails_leaves_the_others_alone(tmp_path):
    suite = {**SUITE, "entries": {"wild": DIVERGES, **SUITE["entries"]}}
    rows = suites.compare(suite, tmp_path / "out", workers=1)
    assert rows[0]["status"].startswith("failed: ")
    assert "client 0: loss became nan in round 1" in rows[0]["status"]
    assert (rows[0]["seeds"], rows[0]["accuracy"], rows[0]["method"]) == (0, None, "fedavg")
    assert [row["status"] for row in rows[1:]] == ["done", "done"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == rows
    assert "wild failed: " in suites.last_words(rows, tmp_path)


def test_a_failed_run_is_tried_again(tmp_path, monkeypatch):
    played = playing.play_run

    def fail(folder, workers, on_round):
        if folder.name == "plain":
            raise TrainingError("the loss\nis not finite")
        played(folder, workers, on_round)

    monkeypatch.setattr(playing, "play_run", fail)
    assert suites.compare(SUITE, tmp_path / "out", workers=1)[0]["status"] == "failed: the loss is not finite"
    monkeypatch.setattr(playing, "play_run", played)
    seen = []
    again = suites.compare(SUITE, tmp_path / "out", workers=1, on_round=lambda name, *_: seen.append(name))
    assert seen == ["plain", "plain"]
    assert [row["status"] for row in again] == ["done", "done"]


def test_of_several_seeds_the_failed_ones_are_named(tmp_path, monkeypatch):
    played = playing.play_run

    def fail(folder, workers, on_round):
        if folder == tmp_path / "out" / "plain" / "seed-1":
            raise OSError("disk full")
        played(folder, workers, on_round)

    monkeypatch.setattr(playing, "play_run", fail)
    suite = {**SUITE, "seeds": [0, 1, 2], "targets": [0.01], "entries": {"plain": SUITE["entries"]["plain"]}}
    (row,) = suites.compare(suite, tmp_path / "out", workers=1)
    assert row["status"] == "failed: seed-1: disk full"
    done = [json.loads((tmp_path / f"out/plain/seed-{seed}/summary.json").read_text()) for seed in (0, 2)]
    assert row["seeds"] == 2
    assert row["accuracy"] == pytest.approx((done[0]["accuracy"] + done[1]["accuracy"]) / 2)
    assert row["bytes_to_0.01"] is None
    assert row["pareto"] is False  # alone as it is


# side by side --------------------------------------------------------------------------------------------------------


class Watched(side.Child):
    """Children of a test, in the order in which they were born."""

    born: list = []  # noqa: RUF012  every test makes its own

    def __init__(self, run):
        super().__init__(run)
        self.born.append(self)


@pytest.fixture
def watched(monkeypatch):
    Watched.born = []
    monkeypatch.setattr(side, "Child", Watched)
    return Watched.born


def test_jobs_change_nothing_not_even_a_failure(tmp_path, watched):
    seen = []

    def look(name, entry, of):
        assert sum(child.process.poll() is None for child in watched) <= 2
        seen.append((name, entry.round, of))

    suite = {**SUITE, "seeds": [1], "entries": {"wild": DIVERGES, **SUITE["entries"]}}
    both = suites.compare(suite, tmp_path / "both", jobs=2, on_round=look)
    assert [child.run.label for child in watched] == ["wild/seed-1", "plain/seed-1", "masks/seed-1"]
    assert sorted(seen) == [(f"{name}/seed-1", number, 2) for name in ("masks", "plain") for number in (1, 2)]
    assert timeless(both) == timeless(suites.compare(suite, tmp_path / "alone", workers=2))
    assert [row["status"] for row in both[1:]] == ["done", "done"]
    assert files(tmp_path / "both") == files(tmp_path / "alone")


def test_a_run_whose_process_is_killed_fails_alone_and_goes_on(tmp_path, watched):
    def kill(name, entry, of):
        if (name, entry.round) == ("plain", 1):
            os.kill(watched[0].process.pid, signal.SIGKILL)

    suite = {**SUITE, "rounds": 40}
    plain, masks = suites.compare(suite, tmp_path / "out", jobs=2, on_round=kill)
    assert plain["status"] == "failed: its process ended with exit code -9 (out of memory?)"
    assert masks["status"] == "done"
    again = suites.compare(suite, tmp_path / "out", jobs=2)
    assert timeless(again) == timeless(suites.compare(suite, tmp_path / "whole", workers=1))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_whatever_stops_the_call_stops_the_processes(tmp_path, watched):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        suites.compare({**SUITE, "rounds": 5000}, tmp_path / "out", jobs=2, on_round=interrupt)
    assert len(watched) == 2
    assert {child.process.poll() for child in watched} == {-signal.SIGTERM}


def test_workers_and_jobs_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="workers = 2: 1 where several runs are played at a time"):
        suites.compare(SUITE, tmp_path / "out", workers=2, jobs=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", ""])
def test_a_wrong_number_of_jobs_is_named(jobs):
    with pytest.raises(ConfigError, match=f"jobs = '{jobs}': a whole number from 1, or auto"):
        suites.processes(jobs)


def test_jobs_by_the_cores():
    assert suites.processes("auto") == cores()
    assert suites.processes("7") == 7


# wrong settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": []}, "seeds = []: different whole numbers"),
        ({"seeds": 3}, "seeds = 3: different whole numbers"),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: different whole numbers"),
        ({"seeds": [0, -1]}, "seeds = [0, -1]: different whole numbers"),
        ({"seeds": [2**56]}, f"seeds = [{2**56}]: different whole numbers"),
        ({"seeds": [0, True]}, "seeds = [0, True]: different whole numbers"),
        ({"seeds": ["0"]}, "seeds = ['0']: different whole numbers"),
        ({"seeds": [0], "entries": {"a": {"seed": 3}}}, "entries.a: seed = 3: no seed of its own where the suite has"),
        ({"targets": [95]}, "targets = [95]: different accuracies above 0 and at most 1"),
        ({"targets": [0.9, 0.9]}, "targets = [0.9, 0.9]: different accuracies"),
        ({"targets": [0]}, "targets = [0]: different accuracies"),
        ({"targets": ["all"]}, "targets = ['all']: different accuracies"),
        ({"targets": 0.9}, "targets = 0.9: different accuracies"),
        ({"entries": {"a": 3}}, "entries.a: experiment = 3: a table of settings"),
    ],
)
def test_wrong_lists_are_named(tmp_path, changed, message):
    with pytest.raises(ConfigError) as caught:
        plan({**SUITE, **changed}, tmp_path / "out")
    assert message in str(caught.value)


def test_every_entrys_wrong_setting_shows_before_anything_trains(tmp_path):
    entries = {
        "codec": {"method": {"name": "fedavg"}, "uplink": {"id": "zip"}},
        "fine": {"method": {"name": "fedavg"}},
        "mask": {"method": {"name": "fedavg"}, "uplink": {"id": "mask"}},
        "data": {"data": {"load": "toyworld:nothing"}},
        "dealt": {"data": {"partition": "shards:900"}},
    }
    with pytest.raises(ConfigError) as caught:
        suites.compare({**SUITE, "entries": entries}, tmp_path / "out", on_round=never)
    first, *others = [str(caught.value), *caught.value.__notes__]
    assert first.startswith("entries.codec: uplink.id = 'zip': ")
    assert others[0].startswith("entries.mask: uplink = 'mask': a codec for float32")
    assert others[1].startswith("entries.data: ")
    assert others[2].startswith("entries.dealt: ")
    assert len(others) == 3
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_all_entries_is_said_once(tmp_path):
    with pytest.raises(ConfigError, match=r"^rounds = 0: ") as caught:
        plan({**SUITE, "rounds": 0}, tmp_path / "out")
    assert not getattr(caught.value, "__notes__", [])
    with pytest.raises(ConfigError, match=r"^data.*toyworld:nothing"):
        check(plan({**SUITE, "data": {"load": "toyworld:nothing"}}, tmp_path / "out"))


def test_data_that_cannot_be_used_are_named_with_the_entry(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"no")
    entries = {**SUITE["entries"], "broken": {"data": {"load": None, "path": str(tmp_path)}}}
    with pytest.raises(DataError, match=r"^entries\.broken: "):
        check(plan({**SUITE, "entries": entries}, tmp_path / "out"))


def test_a_seed_that_alone_does_not_go_is_named(tmp_path):
    def wrong(seeds):
        data = {**SUITE["data"], "clients": 12, "partition": "dirichlet:0.3"}
        try:
            check(plan({**SUITE, "data": data, "seeds": seeds}, tmp_path / "out"))
        except (ConfigError, DataError) as error:
            return [str(error), *getattr(error, "__notes__", [])]
        return []

    fine = [seed for seed in range(30) if not wrong([seed])]
    bad = next(seed for seed in range(30) if seed not in fine)
    lines = wrong([fine[0], bad, fine[1]])
    assert [line.partition(": ")[0] for line in lines] == [f"entries.{name}/seed-{bad}" for name in ("plain", "masks")]
    assert not any(line.startswith("entries.") for line in wrong([bad]))


@pytest.mark.parametrize("seeds", [None, [0, 1]])
def test_runs_of_other_settings_are_refused(tmp_path, seeds):
    suite = SUITE if seeds is None else {**SUITE, "seeds": seeds}
    suites.compare(suite, tmp_path / "out", workers=1)
    others = [{**suite, "rounds": 3}, {**SUITE, "seeds": [0]} if seeds is None else SUITE]
    for other in others:
        with pytest.raises(ConfigError, match="a directory without runs of other settings; choose another --out"):
            suites.compare(other, tmp_path / "out", workers=1)


def test_a_directory_of_an_older_version_goes_on(tmp_path):
    rows = suites.compare(SUITE, tmp_path / "out", workers=1)
    asked = tmp_path / "out" / "plain.toml"
    before, section, after = asked.read_text().partition("[evaluation]\nevery = 0\nserver_every = 1\n")
    assert section
    asked.write_text(before + after)  # it came later
    assert suites.compare(SUITE, tmp_path / "out", workers=1, on_round=never) == rows


# ledgers that cannot be read -----------------------------------------------------------------------------------------


def told(out, suite=SUITE):
    """The rows of a comparison that is done, and what is said about files that cannot be read."""
    words = []
    return suites.compare(suite, out, workers=1, on_round=never, tell=words.append), words


def test_a_run_without_a_ledger_is_a_row_that_says_so(tmp_path):
    suites.compare(SUITE, tmp_path / "out", workers=1)
    (tmp_path / "out" / "plain" / "rounds.jsonl").unlink()
    rows, words = told(tmp_path / "out")
    reason = f"{tmp_path}/out/plain/rounds.jsonl: missing"
    assert words == [reason]
    assert [row["status"] for row in rows] == [f"failed: {reason}", "done"]
    assert rows[0]["accuracy"] is None
    assert (tmp_path / "out" / "report.html").exists()


def test_a_cut_last_line_is_left_out(tmp_path):
    suites.compare({**SUITE, "targets": [0.001]}, tmp_path / "out", workers=1)
    ledger = tmp_path / "out" / "plain" / "rounds.jsonl"
    with open(ledger, "ab") as file:
        file.write(b'{"round": 3, "accu')
    rows, words = told(tmp_path / "out", {**SUITE, "targets": [0.001]})
    assert words == [f"{ledger}, line 3: cut in the middle"]
    assert [row["status"] for row in rows] == ["done", "done"]


def test_a_ledger_of_another_version_costs_what_it_lacks(tmp_path):
    suite = {**SUITE, "targets": [0.001]}
    before = suites.compare(suite, tmp_path / "out", workers=1)
    ledger = tmp_path / "out" / "plain" / "rounds.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert before[0]["bytes_to_0.001"] is not None
    for change in ({"new_field": [1]}, {"total_bytes": None}):
        ledger.write_text("".join(json.dumps(line | change) + "\n" for line in lines))
        rows, words = told(tmp_path / "out", suite)
        assert words == []
        assert rows[0]["accuracy"] == before[0]["accuracy"]
    assert rows[0]["bytes_to_0.001"] is None
    ledger.write_text("".join(json.dumps({"round": line["round"], "acc": 1}) + "\n" for line in lines))
    rows, words = told(tmp_path / "out", suite)
    assert words == [f"{ledger}: 2 of 2 lines, without accuracy, up_bytes, down_bytes, total_bytes"]
    assert (rows[0]["accuracy"], rows[0]["bytes_to_0.001"]) == (before[0]["accuracy"], None)


def test_an_unfinished_run_with_a_ledger_of_another_version_fails_alone(tmp_path):
    class Stop(Exception):
        pass

    def stop(name, entry, _):
        if name == "plain":
            raise Stop

    with pytest.raises(Stop):
        suites.compare(SUITE, tmp_path / "out", workers=1, on_round=stop)
    ledger = tmp_path / "out" / "plain" / "rounds.jsonl"
    line = ledger.read_bytes()
    for file in (ledger, ledger.parent / "checkpoint" / ledger.name):
        file.write_bytes(line.replace(b'"loss"', b'"lost"'))
    rows = suites.compare(SUITE, tmp_path / "out", workers=1)
    assert rows[0]["status"].startswith(f"failed: {ledger}: not what the checkpoint was made with")
    assert rows[1]["status"] == "done"
