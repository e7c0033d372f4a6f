"""The installed command and the package in processes of their own: exit codes, imports, Ctrl-C."""

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


def test_ctrl_c_says_how_to_go_on_and_the_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "mydata.py").write_text(DATA)
    words = ["run", "--data", "mydata:clouds", "--model", "linear", "--clients", "3", "--rounds", "100000"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--workers", "2", "--out", "a"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr.readline().startswith("round 1/100000")
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("stopped; rounds that were committed are kept: thinwire resume RUN")
    assert "Traceback" not in err
    config = tmp_path / "a" / "config.toml"
    done_rounds = len((tmp_path / "a" / "rounds.jsonl").read_text().splitlines())
    config.write_text(config.read_text().replace("rounds = 100000", f"rounds = {done_rounds + 1}"))
    monkeypatch.syspath_prepend(tmp_path)
    assert len(resume(tmp_path / "a", workers=1).rounds) == done_rounds + 1
