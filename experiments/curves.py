"""The points behind figures and tables: every scored round of every run of a suite.

    python experiments/curves.py experiments/frontier/mnist.toml runs/frontier-mnist     after `thinwire compare`

writes experiments/frontier/mnist.csv. up_bytes, down_bytes: of all clients, from the start to the end of that round.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from thinwire.compare import plan, read
from thinwire.report import read_run

COLUMNS = ("entry", "seed", "round", "accuracy", "up_bytes", "down_bytes")


def points(suite: Path, runs: Path) -> Iterator[tuple[object, ...]]:
    """A line for each scored round, entry by entry in the order of the suite."""
    for run in plan(read([str(suite)]), runs).runs:
        rounds = read_run(run.folder).rounds
        sizes = accumulate((np.array((row["up_bytes"], row["down_bytes"])) for row in rounds), np.add)
        for row, (up, down) in zip(rounds, sizes, strict=True):
            if row["accuracy"] is not None:
                yield run.entry, run.experiment.seed, row["round"], row["accuracy"], up, down


def main(suite: Path, runs: Path) -> None:
    """Write them beside the suite."""
    with open(suite.with_suffix(".csv"), "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *points(suite, runs)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
