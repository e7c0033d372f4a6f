"""Timing that can be trusted on a noisy machine: interleaved repeats, medians, ratios of paired runs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

RESULTS = Path(__file__).parent / "results"


def paired(candidates: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each candidate, called in turn A B C A B C …, so that a drifting machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + repeats):
        for name, call in candidates.items():
            start = perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(perf_counter() - start)
    return seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of the ratios a/b, pair by pair."""
    return median(x / y for x, y in zip(a, b, strict=True))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import numpy
    import torch

    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {"processor": model, "cores": os.cpu_count(), **versions}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Print a table and write benchmarks/results/NAME.json with the machine beside it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    headers = list(rows[0])
    print(f"\n{name}\n" + " | ".join(headers))
    for row in rows:
        print(" | ".join(f"{row[h]:.4g}" if isinstance(row[h], float) else str(row[h]) for h in headers))
