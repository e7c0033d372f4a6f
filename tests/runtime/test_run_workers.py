"""Worker processes by every start method: the frames and models of one process, and one line when they cannot be."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from importlib import import_module
from multiprocessing import active_children, get_all_start_methods
from pathlib import Path

import numpy as np
import pytest
from toyworld import CASES_OF_WORKERS, World, experiment, lines, model_bytes, run

from thinwire.data import Dataset, Split
from thinwire.errors import ConfigError, DecodeError, ThinwireError
from thinwire.machine import VARIABLE
from thinwire.runtime import pipes, recipe
from thinwire.runtime import run as runs
from thinwire.runtime.assembly import assemble
from thinwire.runtime.client import Record
from thinwire.runtime.hiring import NoWorkersError
from thinwire.runtime.pool import Task
from thinwire.runtime.run import resume, start
from thinwire.runtime.workers import Workers, open_pool

ANEW = [method for method in ("spawn", "forkserver") if method in get_all_start_methods()]


def recorded(out, name, workers, **settings):
    """Every frame that crossed, and what the run left."""
    start(experiment(name, **settings), out, workers=workers, save_frames=True)
    frames = {path.relative_to(out): path.read_bytes() for path in (out / "frames").rglob("*") if path.is_file()}
    assert frames
    return frames, lines(out), model_bytes(out)


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="compares with fork")
def test_a_run_of_spawned_workers_is_that_of_forked_ones(tmp_path, monkeypatch):
    name, settings = CASES_OF_WORKERS["fedavg + stc"]
    found = []
    for method in ("fork", "spawn"):
        monkeypatch.setenv(VARIABLE, method)
        found.append(recorded(tmp_path / method, name, 2, **settings))
    assert found[0] == found[1]
    assert not active_children()


@pytest.mark.parametrize("method", get_all_start_methods())
def test_a_worker_that_cannot_take_up_the_model_ends_the_run_with_the_reason(tmp_path, monkeypatch, capfd, method):
    monkeypatch.setenv(VARIABLE, method)
    made = assemble(experiment("fedavg"))
    pool = open_pool(made, 2)
    with closing(pool):
        pool.begin(b"no frame", [b""])
        (answer,) = pool.answers([Task(0, 0, 0, Record)])
    assert answer.status == "stop"
    assert "cannot take up the model of the round (DecodeError: frame: " in answer.reason
    assert capfd.readouterr().err == ""


def test_what_cannot_take_up_the_model_reads_no_frame_by_the_round_before():
    world = World("fedpm")
    world.play()
    assert world.side.mirror is not None
    with pytest.raises(DecodeError):
        world.side.sync(b"no frame")
    assert world.side.mirror is None


DRAWS = """
import torch
from torch import nn
scale = torch.rand(3)

def model():
    return nn.Linear(6, 3)
"""


@pytest.mark.skipif("spawn" not in get_all_start_methods(), reason="starts no process anew")
def test_a_worker_has_the_weights_of_the_run_where_its_module_draws_on_import(tmp_path, monkeypatch):
    (tmp_path / "draws_on_import.py").write_text(DRAWS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, "spawn")
    import_module("draws_on_import")  # here before the run, there by the run
    made = assemble(experiment("fedavg", model={"build": "draws_on_import:model"}))
    start_frame = made.method.broadcast(made.method.init(), None)
    answers = []
    for pool in (open_pool(made, 1), open_pool(made, 2)):
        with closing(pool):
            pool.begin(start_frame, [start_frame])
            answers.append([(found.status, found.frame) for found in pool.answers([Task(0, 0, 0, Record)])])
    assert answers[0] == answers[1]
    assert answers[0][0][0] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("method", ANEW)
@pytest.mark.parametrize("case", CASES_OF_WORKERS)
def test_start_methods_change_nothing(tmp_path, monkeypatch, case, method):
    name, settings = CASES_OF_WORKERS[case]
    alone = recorded(tmp_path / "alone", name, 1, **settings)
    monkeypatch.setenv(VARIABLE, "fork")
    assert recorded(tmp_path / "fork", name, 2, **settings) == alone
    monkeypatch.setenv(VARIABLE, method)
    assert recorded(tmp_path / method, name, 2, **settings) == alone
    assert (tmp_path / "alone/clients.csv").exists() == (tmp_path / method / "clients.csv").exists()
    if (tmp_path / "alone/clients.csv").exists():
        assert (tmp_path / "alone/clients.csv").read_bytes() == (tmp_path / method / "clients.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ANEW)
def test_a_worker_that_is_killed_ends_the_run_with_one_line(tmp_path, monkeypatch, method):
    pools, opened = [], runs.open_pool
    monkeypatch.setenv(VARIABLE, method)
    monkeypatch.setattr(runs, "open_pool", lambda *given: pools.append(opened(*given)) or pools[-1])

    def kill_one(entry, of):
        if entry.round == 1:  # the other worker may do all of the second round before this one is missed
            os.kill(pools[0].processes[0].pid, signal.SIGKILL)

    with pytest.raises(ThinwireError, match=r"a worker process ended.*then resume"):
        run(tmp_path / "run", "fedavg", workers=2, on_round=kill_one)
    monkeypatch.undo()
    resume(tmp_path / "run", workers=1)
    run(tmp_path / "whole", "fedavg")
    assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_spawned_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import sys, time; sys.path[:0] = sys.argv[1:]\n"
        "from toyworld import World\n"
        "from thinwire.runtime.workers import open_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = open_pool(World('fedavg').assembly, 2)\n"
        "    print(*[process.pid for process in pool.processes], flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    words = [sys.executable, str(script), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {VARIABLE: "spawn"}) as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert len(workers) == 2
    for pid in workers:
        assert gone(pid)


def gone(pid, seconds=20):
    """Does a process end within so many seconds?"""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# what a process cannot rebuild ---------------------------------------------------------------------------------------


def test_a_model_that_only_this_process_has_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "spawn")
    monkeypatch.setattr("toyworld.of_this_process", World, raising=False)
    world = World("fedavg")
    settings = world.assembly.experiment.model.model_copy(update={"build": "toyworld:of_this_process"})
    made = world.assembly.experiment.model_copy(update={"model": settings})
    assembly = runs.Assembly(made, world.assembly.dataset, world.assembly.parts, "cpu")
    with pytest.raises(NoWorkersError, match=r"cannot build its clients: ConfigError: model = 'toyworld:of_this_pro"):
        open_pool(assembly, 2)
    assert not active_children()


SCRIPT = """
import sys
import time
import thinwire as tw
from torch import nn

def data():
    import numpy as np
    print("loaded", file=sys.stderr)
    draw = np.random.default_rng()  # other samples at every call
    x = draw.normal(size=(60, 4)).astype("float32")
    return (x[:40], (x[:40, 0] > 0).astype(int)), (x[40:], (x[40:, 0] > 0).astype(int))

def model():
    return nn.Linear(4, 2)

{guard}
    tw.run("fedavg", data="__main__:data", model="__main__:model", clients=2, rounds=1, lr=0.1, force=True,
           workers={workers}, device="cpu", out=sys.argv[1])
    print("done")
"""


def script(folder, guard, workers, method):
    (folder / "script.py").write_text(SCRIPT.format(guard=guard, workers=workers))
    words = [sys.executable, str(folder / "script.py"), str(folder / "run")]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=os.environ | {VARIABLE: method})


@pytest.mark.slow
@pytest.mark.parametrize("method", ANEW)
def test_functions_of_a_script(tmp_path, method):
    done = script(tmp_path, "if __name__ == '__main__':", 2, method)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.count("loaded") == 1  # the workers have the samples of the run's own process


@pytest.mark.slow
@pytest.mark.parametrize("method", ANEW)
def test_a_script_without_its_guard_is_told_so(tmp_path, method):
    done = script(tmp_path, "if True:", 2, method)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback") == 1
    ended = "a worker process ended before its first task: a script must start runs under `if __name__ == '__main__':`"
    assert done.stderr.rstrip().splitlines()[-1].endswith(f"{ended}, since its worker processes import it")


@pytest.mark.slow
def test_where_nobody_asked_for_workers_such_a_script_runs_in_one_process(tmp_path):
    done = script(tmp_path, "if True:", None, "spawn")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "one process plays all clients: a worker process ended before its first task" in done.stderr


def test_an_unknown_start_method_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "thread")
    with pytest.raises(ConfigError, match=r"^THINWIRE_START_METHOD = 'thread': one of .*spawn$"):
        run(tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()


# the recipe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"data": {"partition": "dirichlet:0.5", "clients": 6, "allow_empty": True, "test_fraction": 0.3}},
        {"data": {"partition": "drawn:5", "clients": 10**6}},
        {"faults": {"sign_flip": 0.5, "replay": 0.5}, "link": {"up_mbps": 1, "down_mbps": 1, "latency_ms": 1}},
    ],
)
def test_a_recipe_gives_the_same_clients(tmp_path, settings):
    given = assemble(experiment("fedavg", **settings))
    written = pipes.unpack(pipes.pack(recipe.write(given, tmp_path)))[0]
    found = recipe.read(written)
    assert found.experiment == given.experiment
    assert (found.run_id, found.device, len(found.clients)) == (given.run_id, given.device, len(given.clients))
    for client in given.clients[:6]:
        one, other = given.evaluation_data(client), found.evaluation_data(client)
        for field in ("x", "y", "test_x", "test_y"):
            assert np.array_equal(getattr(one, field), getattr(other, field))
            assert getattr(other, field).flags.writeable
            assert getattr(one, field).dtype == getattr(other, field).dtype


def test_a_data_set_given_as_an_object_reaches_the_clients(tmp_path):
    y = np.arange(12) % 3
    given = Dataset("mine", Split(np.arange(72, dtype=np.float32).reshape(12, 6), y), Split(np.zeros((3, 6)), y[:3]), 3)
    assembly = assemble(experiment("fedavg"), given)
    found = recipe.read(recipe.write(assembly, tmp_path))
    assert sorted(np.concatenate([found.client_data(client).x[:, 0] for client in range(4)])) == list(range(0, 72, 6))
    assert found.dataset.classes == 3


def test_the_files_of_the_samples_are_gone_when_the_workers_have_them(tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr("thinwire.runtime.workers.anew", lambda *given: folders.append(given[-1]) or [])
    Workers.anew(World().assembly, 2, "spawn").close()
    assert folders
    assert not folders[0].exists()
