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
        return [{key: value for key, value in row.items() if key != "wall_seconds"} for row in rows]

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


def test_names_on_the_command_line(tmp_path):
    words = ["--model", "linear", "--clients", "2", "--rounds", "1", "--workers", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compare", "fedavg", "stc", *words])
    assert done.exit_code == 0, done.output
    assert "stc" in done.output
    again = CliRunner().invoke(app, ["compare", "fedavg", "zip", *words])
    assert isinstance(again.exception, ConfigError)
    assert "suite = 'zip': a TOML file, or some of" in str(again.exception)
