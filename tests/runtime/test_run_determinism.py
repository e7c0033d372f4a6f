"""The same bytes whatever the number of workers, and after every kind of interruption."""

import json
import os
import random
import signal
import time
from multiprocessing import get_context

import pytest
import torch
from toyworld import Spy, World, lines, model_bytes, run

from thinwire import frame as frames
from thinwire.errors import DataError, ThinwireError
from thinwire.frame import Section
from thinwire.runtime import checkpoint
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import parse, read_file
from thinwire.runtime.run import resume, start

FEEDBACK = {"uplink": {"id": "bfloat16", "error_feedback": True}, "downlink": {"id": "float16"}}
CASES = {
    "fedpm": ("fedpm", {}),
    "fedpm-partial": ("fedpm", {"cohort": {"size": 2}, "data": {"clients": 6, "partition": "dirichlet:1.0"}}),
    "fedavg": ("fedavg", {}),
    "fedavg-feedback": ("fedavg", {**FEEDBACK, "cohort": {"fraction": 0.5}, "data": {"clients": 6}}),
}


class Stop(Exception):
    pass


def same(a, b):
    """The two runs' ledgers but for the seconds, and their model files."""
    assert lines(a) == lines(b)
    assert model_bytes(a) == model_bytes(b)


def summary(out):
    found = json.loads((out / "summary.json").read_text())
    del found["wall_seconds"]
    return found


@pytest.mark.parametrize("name", ["fedavg", "fedpm"])
def test_what_the_caller_has_set_in_torch_changes_nothing(tmp_path, name):
    run(tmp_path / "plain", name, workers=1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        run(tmp_path / "again", name, workers=1)
    same(tmp_path / "plain", tmp_path / "again")


@pytest.mark.parametrize("case", CASES)
def test_workers_change_nothing(tmp_path, case):
    name, settings = CASES[case]
    for workers in (1, 2, 3):
        run(tmp_path / str(workers), name, workers=workers, **settings)
    for workers in (2, 3):
        same(tmp_path / "1", tmp_path / str(workers))
        assert summary(tmp_path / "1") == summary(tmp_path / str(workers))


@pytest.mark.parametrize("case", ["fedpm-partial", "fedavg-feedback"])
def test_frames_are_the_same_bytes_whatever_the_workers(tmp_path, monkeypatch, case):
    name, settings = CASES[case]
    spies, open_pool = [], runs.open_pool

    def spied(assembly, workers):
        spies.append(Spy(open_pool(assembly, workers)))
        return spies[-1]

    monkeypatch.setattr(runs, "open_pool", spied)
    for workers in (1, 2, 3):
        run(tmp_path / str(workers), name, workers=workers, **settings)
    one, *others = ([(a.client, a.frame, a.record) for a in spy.answered] for spy in spies)
    assert len(one) == (3 * 3 if name == "fedavg" else 3 * 2)
    for other in others:
        assert other == one


def test_the_seed_changes_everything(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b", seed=4)
    assert model_bytes(tmp_path / "a") != model_bytes(tmp_path / "b")
    assert lines(tmp_path / "a")[0]["loss"] != lines(tmp_path / "b")[0]["loss"]


def test_config_toml_repeats_the_run(tmp_path):
    for case, (name, settings) in CASES.items():
        first, again = tmp_path / case, tmp_path / f"{case}-again"
        run(first, name, **settings)
        start(parse(read_file(first / "config.toml")), again, workers=1)
        same(first, again)
        assert (first / "config.toml").read_bytes() == (again / "config.toml").read_bytes()


# interruption --------------------------------------------------------------------------------------------------------


def stop_after(rounds):
    def on_round(entry, of):
        if entry.round == rounds:
            raise Stop

    return on_round


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stopped", [1, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, case, stopped):
    name, settings = CASES[case]
    run(tmp_path / "whole", name, rounds=4, **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", name, rounds=4, on_round=stop_after(stopped), **settings)
    assert len(lines(tmp_path / "parts")) == stopped
    assert not (tmp_path / "parts" / "summary.json").exists()
    result = resume(tmp_path / "parts", workers=2)
    same(tmp_path / "whole", tmp_path / "parts")
    assert summary(tmp_path / "whole") == summary(tmp_path / "parts")
    assert [entry.round for entry in result.rounds] == [1, 2, 3, 4]


@pytest.mark.parametrize("case", CASES)
def test_frames_after_a_resumption_are_those_of_the_unbroken_run(tmp_path, monkeypatch, case):
    name, settings = CASES[case]
    spies, open_pool = [], runs.open_pool

    def spied(assembly, workers):
        spies.append(Spy(open_pool(assembly, workers)))
        return spies[-1]

    monkeypatch.setattr(runs, "open_pool", spied)
    run(tmp_path / "whole", name, rounds=4, **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", name, rounds=4, on_round=stop_after(2), **settings)
    resume(tmp_path / "parts", workers=1)
    whole, before, after = ([answer.frame for answer in spy.answered] for spy in spies)
    assert before + after == whole
    sorts = {frames.read(frame).sections[0][0] for frame in after}
    assert Section.VALUES_SHARED in sorts


def test_a_finished_run_may_be_resumed(tmp_path):
    run(tmp_path / "a")
    before = lines(tmp_path / "a"), model_bytes(tmp_path / "a"), summary(tmp_path / "a")
    resume(tmp_path / "a")
    assert (lines(tmp_path / "a"), model_bytes(tmp_path / "a"), summary(tmp_path / "a")) == before


def test_more_rounds_continue_a_finished_run(tmp_path):
    run(tmp_path / "long", rounds=4)
    run(tmp_path / "short", rounds=2)
    config = tmp_path / "short" / "config.toml"
    config.write_text(config.read_text().replace("rounds = 2", "rounds = 4"))
    resume(tmp_path / "short")
    same(tmp_path / "long", tmp_path / "short")


def test_resuming_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no config\.toml, this is not a run directory"):
        resume(tmp_path)


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_checkpoint_now_and_then_replays_the_rounds_since(tmp_path, stopped):
    settings = {"rounds": 5, "checkpoint": {"every": 3}}
    run(tmp_path / "whole", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(stopped), **settings)
    assert checkpoint.saved(tmp_path / "parts" / "checkpoint") == (stopped >= 3)
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == ([1, 2, 3, 4, 5] if stopped < 3 else [4, 5])
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("extra", [b"x", b'{"round": 3', b'{"round": 3}\n{"round": 4}\n', b"\0" * 4096])
def test_what_was_written_after_the_commit_is_cut_off(tmp_path, extra):
    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(2))
    with open(tmp_path / "parts" / "rounds.jsonl", "ab") as file:
        file.write(extra)
    resume(tmp_path / "parts", workers=1)
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("left", [0, 10, -300, -1])
def test_a_ledger_cut_inside_what_was_committed_loses_nothing(tmp_path, left):
    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(2))
    ledger = tmp_path / "parts" / "rounds.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:left])
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == [3]
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_ledger_cut_together_with_its_copy_costs_a_round(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(2))
    for ledger in (tmp_path / "parts" / "rounds.jsonl", tmp_path / "parts" / "checkpoint" / "rounds.jsonl"):
        ledger.write_bytes(ledger.read_bytes()[:-10])
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == [2, 3]
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("line", [b"not JSON", b'{"round": 1}', b"[]", b"7"])
def test_a_broken_line_inside_what_was_committed_is_restored(tmp_path, line):
    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(2))
    ledger = tmp_path / "parts" / "rounds.jsonl"
    first, second = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(line.ljust(len(first) - 1) + b"\n" + second)
    resume(tmp_path / "parts", workers=1)
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_killed_before_its_configuration_had_its_name_starts_anew(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml.tmp").write_text("seed =")
    run(tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml.tmp").exists()


def test_a_run_killed_before_its_first_line_goes_on(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "parts")
    for name in ("rounds.jsonl", "summary.json", "model.tw"):
        (tmp_path / "parts" / name).unlink()
    for path in (tmp_path / "parts" / "checkpoint").iterdir():
        path.unlink()
    resume(tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("case", "workers"), [("fedpm-partial", 1), ("fedavg-feedback", 2), ("fedpm", 2)])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, case, workers):
    name, settings = CASES[case]
    settings = {**settings, "rounds": 6}
    began = time.perf_counter()
    run(tmp_path / "whole", name, workers=workers, **settings)
    lasting = time.perf_counter() - began
    moments = random.Random(f"{case}")
    for attempt in range(2):
        out = tmp_path / str(attempt)
        for _ in range(8):  # killed again and again until it comes to its end
            finished = killed(out, name, workers, settings, after=moments.uniform(0.05, 0.7) * lasting)
            if finished:
                break
        if not finished:
            resume(out, workers=workers)
        same(tmp_path / "whole", out)


def killed(out, name, workers, settings, after):
    """Start or go on in a process of its own, SIGKILL it so many seconds after it began. -> did it end before?"""

    def work():
        if (out / "config.toml").exists():
            resume(out, workers=workers)
        else:
            run(out, name, workers=workers, **settings)
        os._exit(0)

    process = get_context("fork").Process(target=work)
    process.start()
    while not (out / "config.toml").exists() and process.is_alive():
        time.sleep(0.002)
    process.join(after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def test_workers_end_with_the_process_that_started_them(tmp_path):
    pids = get_context("fork").SimpleQueue()

    def work():
        from thinwire.runtime.workers import Workers

        pool = Workers.forked(World().side, 2)
        pids.put([process.pid for process in pool.processes])
        time.sleep(60)

    process = get_context("fork").Process(target=work)
    process.start()
    workers = pids.get()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_dies_ends_the_run_with_one_line(tmp_path, monkeypatch):
    ours, client_data = os.getpid(), runs.Assembly.client_data

    def die(assembly, client):
        return client_data(assembly, client) if os.getpid() == ours else os._exit(3)

    monkeypatch.setattr(runs.Assembly, "client_data", die)
    with pytest.raises(ThinwireError, match="a worker process ended"):
        run(tmp_path / "run", workers=2)


def test_a_worker_that_dies_between_two_rounds_ends_the_run_with_one_line(tmp_path, monkeypatch):
    pools, open_pool = [], runs.open_pool

    def kept(assembly, workers):
        pools.append(open_pool(assembly, workers))
        return pools[-1]

    def kill_workers(entry, of):
        for process in pools[0].processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()

    monkeypatch.setattr(runs, "open_pool", kept)
    with pytest.raises(ThinwireError, match=r"a worker process ended.*then resume"):
        run(tmp_path / "run", workers=2, on_round=kill_workers)
    monkeypatch.undo()
    resume(tmp_path / "run")
    run(tmp_path / "whole")
    same(tmp_path / "run", tmp_path / "whole")
