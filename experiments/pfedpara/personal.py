"""Personal models on MNIST with at most 2 classes a client: pFedPara beside local, FedAvg, FedAvg tuned, FedPer.

10 clients of 1,000 images, 784-256-10, five seeds. Every client trains on 50 of its images and is judged on the others;
`tuned`: after five more epochs on its own, as it would be used. The table has the mean of the clients' accuracies, its
95 % interval over the seeds (Student's t), the worst client in ten, bytes.

    python experiments/pfedpara/personal.py [FOLDER]      from the repository's root; what is there is not run again

Writes personal.csv and personal.md beside this script.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import thinwire as tw
from thinwire.report import read_run

HERE = Path(__file__).parent
SEEDS = range(5)
T_95 = 2.776  # Student's t, 4 degrees of freedom
COMMON: dict[str, Any] = {
    "data": "experiments.subsets:mnist_10000", "clients": 10, "partition": "shards:2", "data.test_fraction": 0.95,
    "model": "mlp2", "optimizer": "adam", "lr": 0.001, "local.lr_decay": 0.97, "batch_size": 10,
    "local_epochs": 5, "rounds": 40,
}  # fmt: skip
ENTRIES: dict[str, dict[str, Any]] = {
    "fedper": {"method": "fedper"},
    "fedavg": {"method": "fedavg"},
    "fedavg, tuned": {"method": "fedavg", "method.fine_tune": 5},
    "local": {"method": "local"},
    "pfedpara": {"method": "pfedpara"},
    "pfedpara, tuned": {"method": "pfedpara", "method.fine_tune": 5},
}


def play(name: str, options: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Run one entry unless its summary is there. -> summary.json."""
    out = folder / f"{name.replace(', ', '-')}-{seed}"
    if not (out / "summary.json").exists():
        tw.run(**(COMMON | options), seed=seed, out=out, force=out.exists())
    return dict(read_run(out).summary)


def interval(values: list[float]) -> str:
    """Mean and 95 % interval in percent."""
    return f"{100 * mean(values):.2f} ± {100 * T_95 * stdev(values) / len(values) ** 0.5:.2f}"


def main(folder: Path) -> None:
    """Run everything, write the table and the lines behind it."""
    columns = ["personal_accuracy", "personal_worst_decile", "up_bytes", "down_bytes", "evaluate_bytes"]
    lines, table = [], ["| method | accuracy % | worst client in ten % | MB up | MB down |", "| --- " * 5 + "|"]
    for name, options in ENTRIES.items():
        runs = [play(name, options, seed, folder) for seed in SEEDS]
        lines += [[name, seed, *(run[column] for column in columns)] for seed, run in zip(SEEDS, runs, strict=True)]
        scores = [interval([run[column] for run in runs]) for column in columns[:2]]
        megabytes = [f"{mean(run[column] for run in runs) / 1e6:.3f}" for column in columns[2:4]]
        table.append(f"| {name} | {' | '.join(scores)} | {' | '.join(megabytes)} |")
        print(table[-1], flush=True)
    with open(HERE / "personal.csv", "w", newline="") as file:
        csv.writer(file).writerows([["method", "seed", *columns], *lines])
    (HERE / "personal.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/pfedpara"))
