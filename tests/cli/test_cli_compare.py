"""`thinwire compare`: one table for several methods on the same data; resumable; other settings are refused."""

import csv
import json

import pytest
from typer.testing import CliRunner

from thinwire import compare as suites
from thinwire.cli import app
from thinwire.errors import ConfigError
from thinwire.runtime.experiment import read_file

SUITE = """
rounds = 2
[data]
name = "digits"
clients = 3
[model]
name = "linear"
[entries.floor]
method = { name = "fedavg" }
[entries.stc-both]
method = { name = "fedavg" }
uplink = { id = "stc", keep = 0.05, error_feedback = true }
downlink = { id = "stc", keep = 0.1 }
[entries.masks]
method = { name = "fedpm" }
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    return read_file(tmp_path / "suite.toml")


def test_a_suite_gives_one_row_an_entry_in_three_forms(suite, tmp_path):
    rows = suites.compare(suite, tmp_path / "out", workers=1)
    assert [row["entry"] for row in rows] == ["floor", "stc-both", "masks"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == rows
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        assert [line["entry"] for line in csv.DictReader(file)] == ["floor", "stc-both", "masks"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    for row in rows:
        lines = (tmp_path / "out" / row["entry"] / "rounds.jsonl").read_text().splitlines()
        ledger = [json.loads(line) for line in lines]
        assert row["total_bytes"] == ledger[-1]["total_bytes"] == row["up_bytes"] + row["down_bytes"]
        assert row["up_ratio"] == pytest.approx(32 * len(ledger) / sum(line["up_bpp"] for line in ledger))
    floor, both, masks = rows
    assert both["total_bytes"] < floor["total_bytes"] / 5
    assert masks["uplink"] == "mask"


def test_what_is_done_is_left_and_what_was_stopped_goes_on(suite, tmp_path):
    class Stop(Exception):
        pass

    def stop(name, entry, rounds):
        if (name, entry.round) == ("stc-both", 1):
            raise Stop

    with pytest.raises(Stop):
        suites.compare(suite, tmp_path / "parts", workers=1, on_round=stop)
    seen = []
    suites.compare(
        suite, tmp_path / "parts", workers=1, on_round=lambda name, entry, _: seen.append((name, entry.round))
    )
    assert seen == [("stc-both", 2), ("masks", 1), ("masks", 2)]
    suites.compare(suite, tmp_path / "whole", workers=1)

    def timeless(folder):
        rows = json.loads((tmp_path / folder / "compare.json").read_text())
        spent = [key for key in rows[0] if key.endswith("_seconds")]
        return [{key: value for key, value in row.items() if key not in spent} for row in rows]

    assert timeless("parts") == timeless("whole")


def test_runs_of_other_settings_are_refused(suite, tmp_path):
    suites.compare(suite, tmp_path / "out", workers=1)
    with pytest.raises(ConfigError, match="a directory without runs of other settings"):
        suites.compare(suite | {"seed": 1}, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"entries": {}}, "entries = {}: a table of experiment fragments"),
        ({}, "entries = None: a table of experiment fragments"),
        ({"entries": {"../x": {}}}, "names of letters"),
        ({"entries": {"a": {"uplink": 3}}}, "uplink = 3"),
        ({"entries": {"a": {"methd": {}}}}, "methd = {}: unknown field"),
    ],
)
def test_a_broken_suite_is_one_clear_line(broken, message):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        suites.entries(broken)


WORDS = ["--model", "linear", "--clients", "2", "--rounds", "1", "--workers", "1"]


def thin(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_names_on_the_command_line(tmp_path):
    done = thin("fedavg", "stc", *WORDS, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "stc" in done.output
    again = thin("fedavg", "zip", *WORDS, "--out", tmp_path / "out")
    assert isinstance(again.exception, ConfigError)
    assert "suite = 'zip': a TOML file, or some of" in str(again.exception)


def test_seeds_and_targets_on_the_command_line(tmp_path):
    (tmp_path / "suite.toml").write_text("seeds = [7]\ntargets = [0.99]\n" + SUITE)
    given = ["--seeds", "0,1", "--targets", "0.01,0.3", "--set", "entries.masks.method.name=fedavg"]
    done = thin(tmp_path / "suite.toml", *WORDS, *given, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {path.parent.name for path in (tmp_path / "out").rglob("summary.json")} == {"seed-0", "seed-1"}
    assert [row["seeds"] for row in rows] == [2, 2, 2]
    assert [key for key in rows[0] if key.startswith("bytes_to_")] == ["bytes_to_0.01", "bytes_to_0.3"]
    assert "±" in done.stdout
    assert "to 30 %" in done.stdout
    one = thin(tmp_path / "suite.toml", *WORDS, "--seed", 5, "--out", tmp_path / "one")
    assert one.exit_code == 0, one.output
    assert "seed = 5" in (tmp_path / "one" / "floor" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0,1", "--seed", "2"], "seeds = '0,1': not together with a single seed"),
        (["--seeds", "0;1"], "seeds = '0;1': different whole numbers from 0 to 2^56 - 1, with commas between them"),
        (["--seeds", "0,0"], "seeds = [0, 0]: different whole numbers"),
        (["--targets", "90"], "targets = [90.0]: different accuracies above 0 and at most 1"),
        (["--targets", "most"], "targets = 'most': different accuracies above 0 and at most 1, with commas"),
        (["--jobs", "some"], "jobs = 'some': a whole number from 1, or auto"),
        (["--jobs", "2", "--workers", "2"], "workers = 2: 1 where several runs are played at a time"),
    ],
)
def test_wrong_options_are_one_clear_line(tmp_path, words, message):
    done = thin("fedavg", "stc", *WORDS, *words, "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_terminal_fits_120_characters_and_marks_the_front(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE.replace("stc-both", "stc-both-with-a-name-of-some-length"))
    given = ["--seeds", "0,1", "--targets", "0.1,0.2,0.3,0.95", "--set", "link.up_mbps=1", "--set", "link.down_mbps=5"]
    done = thin(tmp_path / "suite.toml", *WORDS, *given, "--set", "link.latency_ms=30", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    table = done.stdout.partition("\n* ")[0].splitlines()
    assert max(map(len, table)) <= 120
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    for row in rows:
        (line,) = [line for line in table if line.split()[:1] == [row["entry"]]]  # one line each: nothing is wrapped
        assert (line.split()[1] == "*") == row["pareto"]
        assert f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_ci95']:.2f} %" in line
    assert "bytes_to_0.95" in rows[0]
    header = table[1].split("  ")
    assert any("to 10 %" in cell for cell in header)
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "to 95 % (s)" in page
    assert all(f"| {row['entry']} |" in page for row in rows)


def test_a_failed_run_ends_the_command_with_1_after_the_table(tmp_path):
    wild = ["--set", "entries.stc-both.local.lr=9e5", "--set", "entries.stc-both.local.weight_decay=9e5"]
    (tmp_path / "suite.toml").write_text(SUITE)
    done = thin(tmp_path / "suite.toml", "--rounds", 1, "--workers", 1, *wild, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert not done.exception or isinstance(done.exception, SystemExit)
    assert "\nstc-both failed: client 0: loss became" in done.stdout
    assert "masks" in done.stdout
    assert f"table: {tmp_path}/out/compare.csv" in done.stdout
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        status = {line["entry"]: line["status"] for line in csv.DictReader(file)}
    assert status["floor"] == status["masks"] == "done"
    assert status["stc-both"].startswith("failed: client 0: loss became")
