"""`python -m tests.zoo`: the table of outcomes as Markdown; with --run, cells are played and their faults listed."""

import argparse
import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import torch
from tests.zoo.harness import outcome
from tests.zoo.models import MODELS
from tests.zoo.table import load, markdown, right, save
from tests.zoo.ways import NAMES


def _play(cell: tuple[str, str]) -> str:
    torch.set_num_threads(1)
    return outcome(*cell)


def _run(models: str, ways: str, jobs: int) -> dict[tuple[str, str], str]:
    cells = [(name, way) for name in MODELS for way in NAMES if re.search(models, name) and re.search(ways, way)]
    with ProcessPoolExecutor(jobs) as pool:
        found = dict[tuple[str, str], str]()
        for cell, what in zip(cells, pool.map(_play, cells, chunksize=4), strict=True):
            found[cell] = what
            if len(found) % 100 == 0:
                print(f"{len(found)} of {len(cells)}", file=sys.stderr)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--run", action="store_true", help="play the cells; list those that are not right")
    parser.add_argument("--record", action="store_true", help="play the cells and write outcomes.json anew from them")
    parser.add_argument("--models", default="", help="only models whose name has this pattern")
    parser.add_argument("--ways", default="", help="only ways whose name has this pattern")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    if not (asked.run or asked.record):
        print(markdown(load()))
        return
    found = _run(asked.models, asked.ways, asked.jobs)
    expected = {} if asked.record else load()
    for (name, way), what in found.items():
        if not right(name, way, what, expected):
            print(f"{name} × {way}: {what}")
    print(dict(Counter(what.partition(":")[0] for what in found.values())))
    if asked.record:
        save({**load(), **found})


if __name__ == "__main__":
    main()
