"""Two processes in one directory: the second is refused in one line, a killed one is in nobody's way."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run_determinism import Stop, same, stop_after
from toyworld import experiment, lines, run

from thinwire import compare as suites
from thinwire import suggest as trials
from thinwire.errors import ThinwireError
from thinwire.runtime import lock
from thinwire.runtime.lock import LOCK, held
from thinwire.runtime.run import export, resume, start

HERE = Path(__file__).parent
HOLD = """
import sys, time
from pathlib import Path
from thinwire.runtime.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
PLAY = """
import os, signal, sys
from toyworld import run
def say(entry, rounds):
    print(entry.round, flush=True)
run(sys.argv[1], "fedavg", workers=2, rounds=100000, on_round=say)
"""


def other(code, folder):
    """A Python process that works on the folder; -> once it has said its first line."""
    words = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=HERE, start_new_session=True)
    assert process.stdout.readline()
    return process


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def refused(call, *args, **options):
    with pytest.raises(ThinwireError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def half(tmp_path):
    """A run that was stopped after its first round."""
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(1))
    return tmp_path / "run"


def test_the_second_process_is_refused_and_told_who_holds_the_directory(half):
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    holder = other(HOLD, half)
    try:
        for said in (
            refused(resume, half, workers=1),
            refused(start, experiment("fedavg"), half, workers=1, force=True),
        ):
            assert said.startswith(f"{half}: one process at a time may work here")
            assert f"process {holder.pid} on" in said
        assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file() and path.name != LOCK} == before
        export(half, half.parent / "model.safetensors")  # reads what was committed
    finally:
        end(holder)
    assert len(resume(half, workers=1).rounds) == 3  # killed, its lock is gone
    assert not (half / LOCK).exists()


def test_two_runs_of_one_process_are_two(half):
    with held(half):
        assert f"process {os.getpid()} on" in refused(resume, half, workers=1)
    resume(half, workers=1)


def test_a_run_killed_while_its_workers_live_is_resumed_at_once(tmp_path):
    """Only the run's own process is killed; a worker that is training must not keep the lock."""
    process = other(PLAY, tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "run" / LOCK).exists()
    config = tmp_path / "run" / "config.toml"
    played = len(lines(tmp_path / "run"))
    config.write_text(config.read_text().replace("rounds = 100000", f"rounds = {played + 2}"))
    assert len(resume(tmp_path / "run", workers=1).rounds) == played + 2


def test_a_forked_process_that_outlives_the_run_does_not_keep_its_lock(tmp_path):
    with held(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_run_that_fails_lets_go(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(1))
    assert not (tmp_path / "run" / LOCK).exists()
    whole = run(tmp_path / "whole", "fedavg")
    same(resume(tmp_path / "run", workers=1).out, whole.out)


def test_a_file_left_by_a_killed_run_makes_a_new_directory_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text("process 1 on elsewhere")
    run(tmp_path / "run", "fedavg", rounds=1)
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_file_whose_name_is_gone_locks_nothing(tmp_path, monkeypatch):
    """Its holder removes it while another process, which has opened it, waits: that one must take the new file."""
    real, opened = lock._lock, []

    def removed_first(descriptor):
        if not opened:
            (tmp_path / LOCK).unlink()
        opened.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(lock, "_lock", removed_first)
    with held(tmp_path):
        assert len(opened) == 2
        monkeypatch.undo()
        refused(held(tmp_path).__enter__)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_and_the_run_goes_on(half, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert len(resume(half, workers=1).rounds) == 3
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "locks" in line]
    assert said.startswith("this file system keeps no locks (")


def test_a_system_without_fcntl_takes_the_other_way(tmp_path, monkeypatch):
    """As on Windows: a byte far behind what the file says is locked."""
    calls = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(descriptor, mode, length):
            calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, length))
            if len(calls) > 1:
                raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", Msvcrt)
    with held(tmp_path):
        assert f"process {os.getpid()} on" in refused(held(tmp_path).__enter__)
    assert calls == [(lock.FAR, 2, 1)] * 2


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_file_is_one_line(half, monkeypatch, number):
    real = os.open

    def refuse(path, *rest, **more):
        if str(path).endswith(LOCK):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    said = refused(resume, half, workers=1)
    assert said.startswith(f"{half / LOCK}: {os.strerror(number).lower()}; when mended, resume with")


def test_the_file_is_for_whoever_may_write_here(tmp_path):
    before = os.umask(0o002)
    try:
        with held(tmp_path):
            assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o664
    finally:
        os.umask(before)


SUITE = {
    "rounds": 1, "device": "cpu", "data": {"load": "toyworld:blobs", "clients": 4},
    "model": {"build": "toyworld:two_layers"},
    "entries": {"floor": {"method": {"name": "fedavg"}}, "masks": {"method": {"name": "fedpm"}}},
}  # fmt: skip


def test_a_suite_has_its_directory_for_itself(tmp_path):
    out = tmp_path / "suite"
    with held(out):
        assert "one process at a time" in refused(suites.compare, SUITE, out, workers=1)
        trial = trials.prepare({}, out, budget="1MB", candidates=["fedavg"])
        assert "one process at a time" in refused(trials.play, trial, workers=1)
    assert not (out / "floor").exists()
    assert [row["status"] for row in suites.compare(SUITE, out, workers=1)] == ["done", "done"]


def test_a_run_of_a_suite_that_another_process_plays_fails_alone(tmp_path):
    (tmp_path / "floor").mkdir(parents=True)
    with held(tmp_path / "floor"):
        (tmp_path / "floor" / LOCK).touch()
        suites.plan(SUITE, tmp_path / "other").ask()
        floor, masks = _rows(tmp_path)
    assert floor["status"].startswith("failed: ")
    assert "one process at a time may work here" in floor["status"]
    assert masks["status"] == "done"


def _rows(out):
    plan = suites.Plan(out, tuple(suites.Planned(r.label, r.entry, r.experiment, out / r.entry) for r in _runs(out)))
    return suites.play(plan, workers=1)


def _runs(out):
    return suites.plan(SUITE, out / "elsewhere").runs
