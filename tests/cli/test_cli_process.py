"""The installed command and the package in processes of their own: exit codes, imports, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from thinwire.runtime.run import resume

COMMAND = [sys.executable, "-c", "from thinwire.cli import main; main()"]
CHECK = "import sys, {name}; print(*sorted({{'torch', 'flwr', 'sklearn', 'datasets', 'pydantic'}} & set(sys.modules)))"
DATA = """
import numpy as np

def clouds():
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 6)) + 3 * np.eye(3, 6)[y]
    return (x, y), (x, y)
"""


def call(*words, cwd=None):
    return subprocess.run([*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "found"),
    [("thinwire", ""), ("thinwire.codecs", ""), ("thinwire.cli", ""), ("thinwire.frame", "")],
)
def test_importing_does_not_import_torch(name, found):
    done = subprocess.run([sys.executable, "-c", CHECK.format(name=name)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_a_run_in_a_process_of_its_own(tmp_path):
    (tmp_path / "mydata.py").write_text(DATA)
    words = ["--data", "mydata:clouds", "--model", "linear", "--clients", "3", "--rounds", "1", "--out", "a"]
    done = call("run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report: a/report.html" in done.stdout
    assert done.stderr.splitlines()[0].startswith("round 1/1  accuracy")


def test_the_script_is_installed():
    script = os.path.join(os.path.dirname(sys.executable), "thinwire")
    if not os.path.exists(script):
        pytest.skip("the package is not installed with its scripts")
    done = subprocess.run([script, "inspect", "/no/such/file"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: /no/such/file: cannot be read (No such file or directory)\n"


def heed_interrupts():
    """What runs in the background of a shell inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_go_on_and_the_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "mydata.py").write_text(DATA)
    words = ["run", "--data", "mydata:clouds", "--model", "linear", "--clients", "3", "--rounds", "100000"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--workers", "2", "--out", "a"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stderr.readline().startswith("round 1/100000")
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = err.splitlines()
    assert "ending after the round under way; Ctrl-C again stops at once" in said
    assert said[-1] == "stopped; rounds that were committed are kept: thinwire resume a goes on"
    assert "Traceback" not in err
    config = tmp_path / "a" / "config.toml"
    done_rounds = len((tmp_path / "a" / "rounds.jsonl").read_text().splitlines())
    config.write_text(config.read_text().replace("rounds = 100000", f"rounds = {done_rounds + 1}"))
    monkeypatch.syspath_prepend(tmp_path)
    assert len(resume(tmp_path / "a", workers=1).rounds) == done_rounds + 1


SUITE = """
rounds = {rounds}
device = "cpu"
seeds = [0, 1]
data = {{ load = "mydata:clouds", clients = 3 }}
model = {{ name = "linear" }}
[entries.floor]
method = {{ name = "fedavg" }}
"""


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def gone(pids):
    """Waits until no process of these runs."""
    for _ in range(600):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.1)
    return False


def compare_until(tmp_path, text, rounds):
    """`thinwire compare --jobs 2`, running, and the run that has just said this."""
    (tmp_path / "mydata.py").write_text(DATA)
    (tmp_path / "suite.toml").write_text(SUITE.format(rounds=rounds))
    process = subprocess.Popen(
        [*COMMAND, "compare", "suite.toml", "--jobs", "2", "--out", "a"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    for line in process.stderr:
        if text in line:
            return process, line.partition(":")[0]
    raise AssertionError(f"{text} was never said")


def test_ctrl_c_stops_all_runs_of_a_comparison(tmp_path):
    process, _ = compare_until(tmp_path, "round 2/100000", 100_000)
    playing = children(process.pid)
    assert len(playing) == 2
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; rounds that were committed are kept: the same command goes on"
    assert "Traceback" not in err
    assert gone(playing)


@pytest.mark.slow
def test_a_comparison_whose_process_is_killed_takes_its_runs_along_and_goes_on(tmp_path):
    process, run = compare_until(tmp_path, "round 5/60", 60)
    playing = children(process.pid)
    process.kill()
    process.wait()
    process.stderr.close()
    assert gone(playing)
    assert not list((tmp_path / "a").rglob("summary.json"))
    again = call("compare", "suite.toml", "--jobs", "2", "--out", "a", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{run}: round 60/60" in again.stderr
    assert not [number for number in range(1, 6) if f"{run}: round {number}/60" in again.stderr]
    whole = call("compare", "suite.toml", "--workers", "1", "--out", "b", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for seed in (0, 1):
        assert rounds_of(tmp_path / f"a/floor/seed-{seed}") == rounds_of(tmp_path / f"b/floor/seed-{seed}")


def rounds_of(run):
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_wrong_entries_are_a_line_each(tmp_path):
    (tmp_path / "mydata.py").write_text(DATA)
    (tmp_path / "suite.toml").write_text(SUITE.format(rounds=1))
    wrong = ("entries.floor.uplink.id=zip", "entries.masks.method.name=fedpm", "entries.masks.method.fields=3")
    words = [word for setting in wrong for word in ("--set", setting)]
    done = call("compare", "suite.toml", *words, "--out", "a", cwd=tmp_path)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: entries.floor: uplink.id = 'zip': ")
    assert second.startswith("error: entries.masks: method.fields = 3: unknown field")
    assert not (tmp_path / "a").exists()
