"""Whole runs on handwritten digits, killed with SIGKILL at random moments, workers and all, and resumed to their end.

THINWIRE_KILLS=10 kills each of them ten times.
"""

import os
import random
import signal
import time
from multiprocessing import get_context

import pytest
from test_run_determinism import same, summary

from thinwire.methods import PRESETS
from thinwire.runtime.experiment import merge, parse
from thinwire.runtime.run import resume, start

KILLS = int(os.environ.get("THINWIRE_KILLS", "3"))
SHARED = {
    "seed": 5, "rounds": 12, "device": "cpu", "data": {"name": "digits", "clients": 10, "test_fraction": 0.2},
    "model": {"name": "mlp"}, "cohort": {"fraction": 0.5}, "evaluation": {"every": 4},
}  # fmt: skip
FEDZIP = {"id": "fedzip", "variant": "pinned", "keep": 0.05, "error_feedback": True}
SGD = {"local": {"batch_size": 16, "lr": 0.1}}
METHODS = {
    "fedzip": {"method": {"name": "fedavg"}, "uplink": FEDZIP, "checkpoint": {"memory_mb": 0}, **SGD},
    "fedpm": {"method": {"name": "fedpm"}, "local": {"optimizer": "adam", "lr": 0.1, "batch_size": 32}},
    "ssfl": {"method": {"name": "ssfl", "density": 0.2}, **SGD},
    "pfedpara": {**PRESETS["pfedpara"], "checkpoint": {"every": 2}, "local": {"batch_size": 16, "lr": 0.02}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_at_random_moments_is_the_unbroken_one(tmp_path, name):
    experiment, whole, parts = parse(merge(SHARED, METHODS[name])), tmp_path / "whole", tmp_path / "parts"
    began = time.perf_counter()
    start(experiment, whole, workers=2)
    lasting, draw, kills = time.perf_counter() - began, random.Random(name), 0
    while kills < KILLS and not killed(experiment, parts, after=draw.uniform(0, lasting / KILLS / 1.5)):
        kills += 1
    print(f"{name}: {lasting:.1f} s unbroken, killed {kills} times")
    if kills == KILLS:
        resume(parts, workers=2)
    same(whole, parts)
    assert summary(whole) == summary(parts)
    assert (whole / "clients.csv").read_bytes() == (parts / "clients.csv").read_bytes()
    assert kills  # how many is up to the machine


def killed(experiment, out, after):
    """Start or go on in a session of its own, kill all of it so many seconds later. -> did it end before?"""

    def work():
        os.setsid()
        if (out / "config.toml").exists():
            resume(out, workers=2)
        else:
            start(experiment, out, workers=2)
        os._exit(0)

    process = get_context("fork").Process(target=work)
    process.start()
    process.join(after)
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # not yet a session of its own
            process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0
