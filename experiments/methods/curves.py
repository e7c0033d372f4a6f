"""The points behind the curves of the documentation: every round of every run of mnist.toml and digits.toml.

    python experiments/methods/curves.py runs      after `thinwire compare`; writes curves.csv beside this script

Reads runs/methods-mnist and runs/methods-digits. up_bytes, down_bytes: of that round, all clients.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from thinwire.report import read_run
from thinwire.runtime.experiment import read_file

HERE = Path(__file__).parent
COLUMNS = ("round", "accuracy", "up_bytes", "down_bytes")


def main(runs: Path) -> None:
    """Collect the rounds, entry by entry in the order of the suites."""
    lines = [
        [data, entry, *(row[column] for column in COLUMNS)]
        for data in ("mnist", "digits")
        for entry in read_file(HERE / f"{data}.toml")["entries"]
        for row in read_run(runs / f"methods-{data}" / entry).rounds
    ]
    with open(HERE / "curves.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["data", "entry", *COLUMNS], *lines])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
