"""`python -m benchmarks.fuzz --count 1_000_000 --seed 0 --jobs 2`: so many mutations, spread over all targets.

Each target's share depends on count, seed and its name alone, so any number of jobs sees the same mutants. What is
done is kept in OUT/found.jsonl, and the same command goes on; bytes that escape are kept there too. The last line says
whether any did, as does the exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

from benchmarks.fuzz.campaign import play
from benchmarks.fuzz.targets import REFUSALS, Target, targets
from benchmarks.measure import save

_targets: dict[str, Target] = {}  # inherited by the processes


def _play(work: tuple[str, int, int]) -> dict[str, Any]:
    name, count, seed = work
    began = perf_counter()
    return play(_targets[name], count, seed).plain() | {"wall_seconds": perf_counter() - began}


def _group(name: str) -> str:
    """A codec's contexts and a method's ends are one row of the table."""
    words = name.split(",")[0].split()
    return " ".join(words[:-1]) if words[-1] in ("up", "down") or words[-1].isdigit() else name


def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table: a row a group."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault(_group(one["target"]), []).append(one)
    return [_row(name, group) for name, group in groups.items()]


def _row(name: str, group: list[dict[str, Any]]) -> dict[str, Any]:
    reasons = sum((Counter(one["refusals"]) for one in group), Counter[str]())
    sums = {key: sum(one[key] for one in group) for key in ("mutations", "accepted", "kept")}
    return {
        "target": name, **sums, "reasons": len(reasons), "most frequent": next(iter(dict(reasons.most_common(1))), ""),
        "slowest_ms": 1000 * max(one["slowest_seconds"] for one in group),
        "peak_MB": max(one["peak_bytes"] for one in group) / 1e6,
        "grown_MB": max(one["grown_bytes"] for one in group) / 1e6,
        "escapes": sum(len(one["escapes"]) for one in group),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    asked = parser.parse_args()
    _targets.update({target.name: target for target in targets()})
    for target in _targets.values():
        for sample in target.samples:  # compiled once, before the processes are forked
            with suppress(*REFUSALS):
                target.read(sample)
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / f"found-{asked.count}-{asked.seed}.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    share = -(-asked.count // len(_targets))
    left = [name for name in _targets if name not in {one["target"] for one in found}]
    work = [(name, share, crc32(f"{asked.seed} {name}".encode())) for name in left]
    with get_context("fork").Pool(asked.jobs, maxtasksperchild=1) as pool, open(path, "a") as file:
        for one in pool.imap_unordered(_play, work):
            found.append(one)
            file.write(json.dumps(one) + "\n")
            file.flush()
            print(f"{len(found)}/{len(_targets)} {one['target']}: {one['wall_seconds']:.0f} s", file=sys.stderr)
    for one in found:
        for what, data in one["escapes"][:5]:
            print(f"escape: {one['target']}: {what}: {data}")
    save("fuzz", rows(found))
    escapes, done = sum(len(one["escapes"]) for one in found), sum(one["mutations"] for one in found)
    print(
        f"{done:,} mutations, seed {asked.seed}, {sum(one['wall_seconds'] for one in found):.0f} s: {escapes} escapes"
    )
    return int(escapes > 0)


if __name__ == "__main__":
    sys.exit(main())
