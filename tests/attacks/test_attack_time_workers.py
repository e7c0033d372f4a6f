"""Time: a worker process of a run on one machine that never answers, by a model or data that loop, or by SIGSTOP.

With `cohort.worker_timeout` the process is killed, its client is late by name, and the others go on. Without it the run
waits, says for whom, and ends in seconds when it is told to. A process that is stopped stands for all of them: it reads
nothing, writes nothing and heeds no SIGTERM.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from toyworld import World, experiment, lines, model_bytes, run

from thinwire.errors import ConfigError, ThinwireError
from thinwire.machine import VARIABLE
from thinwire.runtime import hiring, workers
from thinwire.runtime.assembly import assemble
from thinwire.runtime.client import Record
from thinwire.runtime.evaluation import evaluate_clients
from thinwire.runtime.pool import Task
from thinwire.runtime.run import resume
from thinwire.runtime.workers import Elsewhere, Workers, open_pool

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux whether a process is stopped")

TIMEOUT = 0.3  # seconds, of which a process that is not stopped may take as many as it likes: see `patience`
HELD = {"data": {"load": "toyworld:blobs", "clients": 4, "test_fraction": 0.2}}


def stop_me():
    os.kill(os.getpid(), signal.SIGSTOP)


def hanging(client, of):
    """What a method's function does, but for one client: that one stops its process."""

    def hangs(held, state, data):
        if data.client == client:
            stop_me()
        return of(held, state, data)

    return hangs


def is_stopped(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def patience(monkeypatch):
    """A process takes too long only once it is stopped, however slow this machine is."""
    look_at = Workers._look_at

    def stopped_only(pool, courier, job):
        if is_stopped(courier.process):
            look_at(pool, courier, job)

    monkeypatch.setattr(Workers, "_look_at", stopped_only)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nothing here takes longer than it must."""
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(hiring, "GRACE_SECONDS", 0.5)


@pytest.fixture
def named_soon(patience, monkeypatch):
    """A stopped process is named after a moment."""
    monkeypatch.setattr(workers, "NAMED_SECONDS", 0.1)
    monkeypatch.setattr(workers, "NAMED_TIMES", 0.0)


# with a timeout ------------------------------------------------------------------------------------------------------


def test_a_client_that_stops_its_process_in_training_is_late_and_the_others_count(patience, capfd):
    world = World("fedavg")
    world.side.method = replace(world.method, train=hanging(2, world.method.train))
    with closing(Workers.forked(world.side, 2, TIMEOUT)) as pool:
        world.simulation.pool = pool
        entry = world.play()
        assert (entry.clients, entry.dropped) == (3, [{"client": 2, "reason": late()}])
        assert 2 not in world.progress.have
        assert world.progress.records.of(2) == Record()
        assert len(pool.couriers) == 1
    said = capfd.readouterr().err
    assert f"took more than {TIMEOUT:g} s to train client 2 and was killed; 1 of 2 processes are left" in said
    assert not active_children()


def test_one_that_stops_it_in_an_evaluation_has_no_score_and_the_ledger_says_so(patience):
    world = World("fedavg", **HELD)
    world.side.test_data = world.assembly.evaluation_data
    world.side.method = replace(world.method, evaluate=hanging(1, world.method.evaluate))
    with closing(Workers.forked(world.side, 2, TIMEOUT)) as pool:
        world.simulation.pool = pool
        evaluation = evaluate_clients(world.simulation, world.progress, list(world.assembly.test_samples))
    assert [score.client for score in evaluation.scores] == [0, 2, 3]
    assert evaluation.dropped == [{"client": 1, "reason": f"evaluation: {late()}"}]


def test_a_process_that_stops_over_a_frame_leaves_its_reading_to_the_run(patience):
    alone, world = World("fedpm"), World("fedpm")
    world.side.method = replace(world.method, read=lambda state, client, frame: stop_me())
    with closing(Workers.forked(world.side, 1, TIMEOUT)) as pool:
        world.simulation.pool, world.simulation.reader = pool, Elsewhere(world.method, pool)
        tasks = pool.answers
        pool.answers = lambda *given: iter(list(tasks(*given)))  # all are there before the first frame is read
        assert replace(world.play(), seconds={}) == replace(alone.play(), seconds={})
        assert pool.couriers == []


def test_a_message_larger_than_the_pipe_to_a_stopped_process_holds_nobody(patience):
    world = World("fedavg")
    start = world.method.broadcast(world.progress.server, None)
    with closing(Workers.forked(world.side, 2, TIMEOUT)) as pool:
        stopped = pool.processes[0]
        os.kill(stopped.pid, signal.SIGSTOP)
        pool.begin(start, [start, bytes(2**24)])  # returns
        answers = list(pool.answers([Task(client, 0, 0, Record) for client in range(4)]))
        assert [answer.status for answer in answers] == ["done"] * 4
        pool.begin(start, [start])  # waits for the stopped one, and gives it up
        assert [courier.process for courier in pool.couriers] == pool.processes[1:]


def test_a_task_larger_than_the_pipe_to_a_stopped_process_is_late(patience):
    world = World("fedavg")
    start = world.method.broadcast(world.progress.server, None)
    with closing(Workers.forked(world.side, 1, TIMEOUT)) as pool:
        pool.begin(start, [start])
        while pool.couriers[0].job:
            pool._listen()
        os.kill(pool.processes[0].pid, signal.SIGSTOP)
        (answer,) = pool.answers([Task(3, 0, 0, lambda: Record(state=bytes(2**24)))])
    assert (answer.client, answer.status, answer.reason) == (3, "failed", late())


MODULE = """
import os, signal, time
from multiprocessing import current_process
from pathlib import Path
from toyworld import TwoLayers

class Hangs(TwoLayers):
    def forward(self, x):
        if self.training and current_process().name == "thinwire worker" and {when}:
            {what}
        return super().forward(x)

def hangs():
    try:
        Path({flag!r}).{take}
    except FileNotFoundError:
        return False
    return True

def model():
    return Hangs()
"""
LOOP, STOP = "while True: time.sleep(0.01)", "os.kill(os.getpid(), signal.SIGSTOP)"
ALL, ONE = "stat()", "unlink()"  # while the file is there, or the first that finds it there


@pytest.fixture
def hanging_model(tmp_path, monkeypatch):
    """Writes a model whose training hangs in a worker while there is a file. -> its settings, and the file"""

    def made(what, which):
        source = MODULE.format(flag=str(tmp_path / "hang"), what=what, when="hangs()", take=which)
        (tmp_path / "code" / "hanging_model.py").write_text(source)
        return {"build": "hanging_model:model"}, tmp_path / "hang"

    (tmp_path / "code").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv(VARIABLE, "fork")
    yield made
    sys.modules.pop("hanging_model", None)


def after_round_one(flag):
    return lambda entry, of: flag.touch() if entry.round == 1 else None


def test_a_model_that_hangs_in_round_two_costs_one_client_of_that_round(tmp_path, patience, hanging_model):
    model, flag = hanging_model(STOP, ONE)
    settings = {"model": model, "rounds": 3, "cohort": {"worker_timeout": TIMEOUT}}
    run(tmp_path / "run", "fedavg", workers=2, on_round=after_round_one(flag), **settings)
    check_one_late(lines(tmp_path / "run"), TIMEOUT)


@pytest.mark.slow
def test_so_does_one_that_loops(tmp_path, hanging_model):
    model, flag = hanging_model(LOOP, ONE)
    settings = {"model": model, "rounds": 3, "cohort": {"worker_timeout": 30}}
    run(tmp_path / "run", "fedavg", workers=2, on_round=after_round_one(flag), **settings)
    check_one_late(lines(tmp_path / "run"), 30)


def check_one_late(rounds, timeout):
    assert [entry["clients"] for entry in rounds] == [4, 3, 4]
    assert [drop["reason"] for drop in rounds[1]["dropped"]] == [late(timeout)]
    assert [entry["dropped"] for entry in (rounds[0], rounds[2])] == [[], []]


@pytest.mark.parametrize("number", [1, 2])
def test_when_all_hang_the_run_ends_with_one_line_and_is_resumed(tmp_path, patience, hanging_model, number):
    model, flag = hanging_model(STOP, ALL)
    settings = {"model": model, "rounds": 3, "cohort": {"worker_timeout": TIMEOUT}}
    with pytest.raises(ThinwireError, match=r"^all worker processes took longer than .*worker_timeout.*then resume$"):
        run(tmp_path / "run", "fedavg", workers=number, on_round=after_round_one(flag), **settings)
    assert not active_children()
    assert [entry["round"] for entry in lines(tmp_path / "run")] == [1]
    flag.unlink()
    resume(tmp_path / "run", workers=2)
    run(tmp_path / "whole", "fedavg", **(settings | {"cohort": {}}))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_on_the_command_line_that_is_exit_code_1(tmp_path, hanging_model):
    model, flag = hanging_model(LOOP, ALL)
    flag.touch()
    words = ["run", "--method", "fedavg", "--data", "toyworld:blobs", "--model", model["build"], "--clients", "3"]
    options = ["--workers", "2", "--set", "cohort.worker_timeout=10", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", "from thinwire.cli import main; main()", *words, *options],
        capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: all worker processes took longer than")
    assert "Traceback" not in done.stderr


def late(timeout=TIMEOUT):
    return f"late: no answer in {timeout:g} s (cohort.worker_timeout)"


# without one ---------------------------------------------------------------------------------------------------------


def test_the_run_waits_says_once_for_whom_and_goes_on_with_the_very_bytes(named_soon, monkeypatch):
    alone, world, said = World("fedavg"), World("fedavg"), []
    world.side.method = replace(world.method, train=hanging(2, world.method.train))

    def wake(courier, what):
        said.append((courier.process.pid, what))
        if "train client 2" in what:
            os.kill(courier.process.pid, signal.SIGCONT)

    monkeypatch.setattr(workers, "_say", wake)
    with closing(Workers.forked(world.side, 2)) as pool:
        world.simulation.pool = pool
        entry = world.play()
        pids = [process.pid for process in pool.processes]
    assert replace(entry, seconds={}) == replace(alone.play(), seconds={})
    ((pid, what),) = [line for line in said if "train client 2" in line[1]]
    assert pid in pids
    assert what.startswith("has taken 0 s to train client 2 and is not done; cohort.worker_timeout would")


def test_the_line_is_for_a_reader(named_soon, capfd):
    world = World("fedavg")
    start = world.method.broadcast(world.progress.server, None)
    with closing(Workers.forked(world.side, 1)) as pool:
        os.kill(pool.processes[0].pid, signal.SIGSTOP)
        pool.begin(start, [start])
        while not pool.couriers[0].named:
            pool._listen()
        for _ in range(3):  # once, however often it looks
            pool._listen()
        pid = pool.processes[0].pid
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"worker process {pid} has taken 0 s to take up the model of the round and is not done")


def test_a_job_that_takes_as_long_as_those_before_is_not_named(monkeypatch, capfd):
    monkeypatch.setattr(workers, "NAMED_SECONDS", 0.0)
    world = World("fedavg")
    with closing(Workers.forked(world.side, 2)) as pool:
        pool.longest = 60.0
        world.simulation.pool = pool
        assert world.play().clients == 4
    assert capfd.readouterr().err == ""


def test_workers_that_are_stopped_end_with_their_pool_in_seconds():
    world = World("fedavg")
    start = world.method.broadcast(world.progress.server, None)
    pool = Workers.forked(world.side, 2)
    for process in pool.processes:
        os.kill(process.pid, signal.SIGSTOP)
    pool.begin(start, [start, bytes(2**24)])
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 60
    assert not active_children()
    assert not any(courier.thread.is_alive() for courier in pool.hired)


SCRIPT = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from toyworld import run
from thinwire.runtime import run as runs

pools, opened = [], runs.open_pool
runs.open_pool = lambda *given: pools.append(opened(*given)) or pools[-1]

def stop_one(entry, of):
    os.kill(pools[0].processes[0].pid, signal.SIGSTOP)
    print("round", entry.round, flush=True)

if __name__ == "__main__":
    run(sys.argv[1], "fedavg", workers=2, rounds=9, on_round=stop_one)
"""


def test_ctrl_c_twice_ends_a_run_that_waits_for_a_stopped_worker(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    out, folder = tmp_path / "run", Path(__file__).parents[1] / "runtime"
    words = [sys.executable, str(tmp_path / "script.py"), str(out), str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline() for _ in range(2)]  # the other worker plays round 2 alone
            assert said == ["round 1\n", "round 2\n"]  # round 3 begins when both are there: never
            process.send_signal(signal.SIGINT)
            assert "ending after the round" in process.stderr.readline() + process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert len(lines(out)) == 2


# the setting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, "soon", 1e7])
def test_a_timeout_that_cannot_be_is_refused(value):
    with pytest.raises(ConfigError, match=r"^cohort\.worker_timeout = "):
        experiment("fedavg", cohort={"worker_timeout": value})


def test_one_worker_is_a_process_of_its_own_where_it_may_be_given_up():
    with closing(open_pool(assemble(experiment("fedavg", cohort={"worker_timeout": 60})), 1)) as pool:
        assert len(pool.processes) == 1
    assert not isinstance(open_pool(assemble(experiment("fedavg")), 1), Workers)


def test_where_clients_train_together_it_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^cohort\.worker_timeout = 60\.0: not given on a GPU, and where clients"):
        run(tmp_path / "run", "fedavg", cohort={"worker_timeout": 60}, local={"together": True})


def test_it_may_be_changed_before_a_run_is_resumed_and_shapes_no_byte(tmp_path):
    class Enough(Exception):
        pass

    def enough(entry, of):
        raise Enough

    with pytest.raises(Enough):
        run(tmp_path / "run", "fedavg", on_round=enough)
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("[cohort]", "[cohort]\nworker_timeout = 60.0"))
    resume(tmp_path / "run", workers=2)
    run(tmp_path / "whole", "fedavg", workers=1)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "whole")
