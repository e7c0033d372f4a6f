"""`thinwire suggest`: what it prints and leaves, how it ends, and that the same command goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toyworld
from typer.testing import CliRunner

from thinwire import cli
from thinwire.errors import ConfigError
from thinwire.runtime.experiment import parse, read_file

TOY = ["--data", "toyworld:blobs", "--model", "toyworld:two_layers", "--clients", "3", "--workers", "1"]
COMMAND = [sys.executable, "-c", "from thinwire.cli import main; main()"]


def thin(*words):
    return CliRunner().invoke(cli.app, ["suggest", *map(str, words)])


def test_the_known_good_candidates_on_a_model_of_ones_own(tmp_path):
    given = ["--rounds", 2, "--lr", 0.3, "--batch-size", 8, "--set", "local.momentum=0.5"]
    done = thin("--budget", "20kB", *TOY, *given, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    table, _, below = done.stdout.partition("\n# suggested for 20.0 kB: ")
    assert max(map(len, table.splitlines())) <= 120
    assert [word for word in ("fedpm", "ssfl", "float32") if f"\n {word} " not in table] == []
    assert "left out: fedpara: parameterisation.name = 'fedpara': only for a model" in below
    assert "One seed and short runs" in below
    assert f"experiment: {tmp_path}/suggested.toml" in below
    suggested = parse(read_file(tmp_path / "suggested.toml"))
    assert suggested.data.source == "toyworld:blobs"
    assert (tmp_path / "suggested.toml").read_text() in done.stdout
    assert suggested.method["name"] == "fedpm" or suggested.local.model_dump(include={"lr", "momentum"}) == {
        "lr": 0.3, "momentum": 0.5,
    }  # fmt: skip
    assert {"suggest.json", "suggest.md", "report.html"} < {path.name for path in tmp_path.iterdir()}
    assert "fedpm: round 1/2  accuracy" in done.stderr
    again = thin("--budget", "20kB", *TOY, *given, "--out", tmp_path)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert "round" not in again.stderr


def test_a_deadline_over_a_link(tmp_path):
    words = ["fedavg", "stc", "--deadline", "2min", "--link", "0.01/0.1/20", "--set", "link.spread=0.1", *TOY]
    done = thin(*words, "--rounds", 2, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "suggested for 120 s: " in done.stdout
    assert "link s" in done.stdout
    link = parse(read_file(tmp_path / "suggested.toml")).link
    assert link.model_dump() == {"up_mbps": 0.01, "down_mbps": 0.1, "latency_ms": 20.0, "spread": 0.1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "budget = None: either a budget of bytes, as 5MB, or a deadline over links, as 10min"),
        (["--budget", "5MB", "--deadline", "1h"], "either a budget of bytes"),
        (["--budget", "5 parsecs"], "budget = '5 parsecs': a number above 0, alone or with B, kB, MB, GB"),
        (["--deadline", "soon"], "deadline = 'soon': a number above 0, alone or with s, min or h"),
        (["--deadline", "1h"], "deadline = '1h': only with links: --link UP/DOWN/LATENCY"),
        (["--deadline", "1h", "--link", "fast"], "link = 'fast': UP/DOWN/LATENCY"),
        (["--deadline", "1h", "--link", "0/1/1"], "link.up_mbps = 0.0"),
        (["--budget", "5MB", "--set", "speed=1"], "speed = 1: unknown field"),
        (["--budget", "5MB", "--model", "nothing"], "model = 'nothing': one of linear"),
        (["nothing", "--budget", "5MB"], "suite = 'nothing': a TOML file, or some of"),
    ],
)
def test_wrong_requests_are_one_clear_line(tmp_path, words, message):
    done = thin(*TOY, *words, "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_too_small_a_budget_ends_with_2_and_names_the_least(tmp_path, monkeypatch, capsys):
    words = ["fedavg", "stc", "fedpm", *TOY, "--budget", "20", "--rounds", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["thinwire", "suggest", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("error: budget = '20 B': at least ")
    assert "takes in its first round" in captured.err


def heed_interrupts():
    """What runs in the background of a shell inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "suggest", "fedavg", "stc", *TOY, "--budget", "1GB", "--rounds", "100000"], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(toyworld.__file__).parent)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stderr.readline().startswith("fedavg: round 1/100000")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; rounds that were committed are kept: the same command goes on"
    assert "Traceback" not in err
    assert (tmp_path / "runs" / "suggest" / "fedavg" / "rounds.jsonl").read_text()
