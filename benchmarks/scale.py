"""Populations of 1,000 to 100,000 clients, 1,000 of them a round: client i has 10 images of MNIST drawn by (seed, i).

Every setting is a run of its own, in a process of its own, with its checkpoint a round. `MB all` is the largest sum, in
samples of four a second, of what this process and its workers hold, a page that several share counted once (Linux's
proportional set size); beside it the largest resident memory of this process, and of one worker with what it shares.
The first round has all that comes before it: imports, loading the data. Seconds of the processors say what a round
costs where others use the machine too, the sampling of memory in the server's; the last round scores the model and is
left out.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter, process_time
from typing import Any

from benchmarks.measure import save

COHORT, IMAGES, WORKERS = 1_000, 10, 2
FEEDBACK = {"id": "fedzip", "variant": "pinned", "error_feedback": True}
SETTINGS: list[dict[str, Any]] = [
    *({"model": model, "clients": clients} for model in ("linear", "lenet") for clients in (1_000, 10_000, 100_000)),
    *({"model": "linear", "clients": clients, "uplink": FEEDBACK} for clients in (1_000, 10_000, 100_000)),
]


def measured(model: str, clients: int, uplink: dict[str, Any] | None = None, rounds: int = 5) -> dict[str, Any]:
    """One run in this process: seconds a round, the first apart, with all that belongs to it; megabytes."""
    from thinwire.api import settings
    from thinwire.runtime import run as runs
    from thinwire.runtime.experiment import merge, parse

    options = {"method": "fedavg", "data": "mnist", "partition": f"drawn:{IMAGES}", "batch_size": IMAGES}
    made = settings(**options, model=model, clients=clients, fraction=COHORT / clients, rounds=rounds)
    made = merge(made, {"evaluation": {"server_every": rounds}, "uplink": uplink or {}})
    began, ends, busy = perf_counter(), list[float](), list[float]()

    def note(*_: Any) -> None:
        ends.append(perf_counter())
        busy.append(process_time())

    with TemporaryDirectory() as folder, Watch() as watch:
        out = Path(folder) / "run"
        result = runs.start(parse(made), out, workers=WORKERS, on_round=note)
        disk = sum(path.stat().st_size for path in (out / "checkpoint").iterdir())
    seconds = [end - start for start, end in zip([began, *ends], ends, strict=False)]
    return {
        "model": model, "uplink": uplink["id"] if uplink else "float32", "clients": clients, "rounds": rounds,
        "s first round": seconds[0], "s a round": median(seconds[1:-1]),
        "CPU s a round, server": (busy[-2] - busy[0]) / (rounds - 2),
        "CPU s a round, workers": _cpu_seconds(resource.RUSAGE_CHILDREN) / rounds,
        "MB all": watch.most / 1e6, "MB server": _megabytes(resource.RUSAGE_SELF),
        "MB a worker": _megabytes(resource.RUSAGE_CHILDREN),
        "MB checkpoint": disk / 1e6,
        "accuracy": result.summary["accuracy"],
    }  # fmt: skip


class Watch(Thread):
    """The largest memory of this process and its children, while the block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0, Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        """Samples until the block is over."""
        while not self.over.wait(0.25):
            found = [os.getpid(), *(child.pid for child in active_children() if child.pid)]
            self.most = max(self.most, sum(map(_proportional, found)))


def _proportional(pid: int) -> int:
    """Bytes of a process, a page that it shares with others divided among them; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _cpu_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _megabytes(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * 1024 / 1e6


def main() -> None:
    """All settings."""
    rows = []
    for setting in SETTINGS:
        call = [sys.executable, "-m", "benchmarks.scale", json.dumps(setting)]
        done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    save("scale", rows)


if __name__ == "__main__":
    print(json.dumps(measured(**json.loads(sys.argv[1]))))
