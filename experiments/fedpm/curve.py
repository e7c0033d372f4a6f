"""The honest curve: bits and accuracy by round, beside a control that does not learn (learning rate 0).

How much of the fall in bits is learning, how much is drift of θ, the mean of sampled masks? Digits, MLP, 3 local
epochs, batch 32, 40 rounds; 5 to 100 clients, IID and Dirichlet 0.3, all clients or a tenth of them a round with the
accumulating Beta prior (`beta`) or none (`mean`: θ is the mean of the last round's masks).

    python experiments/fedpm/curve.py [FOLDER]      about 20 minutes on 2 cores; what is there already is not run again

Writes curve.csv (one line a round of every run) and curve.md (the tables of the README) beside this script.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import thinwire as tw
from thinwire.report import read_run

HERE = Path(__file__).parent
ROUNDS = 40
SHOWN = (1, 2, 5, 10, 20, 30, 40)


def settings() -> Iterator[dict[str, Any]]:
    """Every run: clients, partition, who takes part, what the prior does, learning rate."""
    who = (("all", 1.0, "beta"), ("a tenth", 0.1, "beta"), ("a tenth", 0.1, "mean"))
    for clients, partition, (part, fraction, prior), lr in product(
        (5, 10, 40, 100), ("iid", "dirichlet:0.3"), who, (0.1, 0.0)
    ):
        yield {"clients": clients, "partition": partition, "part": part, "fraction": fraction, "prior": prior, "lr": lr}


def play(setting: dict[str, Any], folder: Path) -> Path:
    """Run one setting unless its summary is there."""
    name = "-".join(
        str(setting[key]).replace(":", "").replace(" ", "") for key in ("clients", "partition", "part", "prior", "lr")
    )
    out = folder / name
    if not (out / "summary.json").exists():
        options: dict[str, Any] = {key: setting[key] for key in ("clients", "partition", "fraction", "lr")}
        if setting["prior"] == "mean":
            options["method.reset_every"] = 1
        tw.run(
            "fedpm", data="digits", model="mlp", rounds=ROUNDS, local_epochs=3, batch_size=32, seed=0,
            allow_empty=True, out=out, force=out.exists(), **options,
        )  # fmt: skip
    return out


def markdown(names: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main(folder: Path) -> None:
    """Run everything, write the table and the lines behind it."""
    columns = (
        "clients",
        "partition",
        "part",
        "prior",
        "lr",
        "round",
        "accuracy",
        "up_bpp",
        "up_bpp_marginal",
        "down_bpp",
    )
    lines, table, accuracy = [], [], []
    for setting in settings():
        run = read_run(play(setting, folder))
        by_round = {line["round"]: {**setting, **line} for line in run.rounds}
        lines += [[line[column] for column in columns] for line in by_round.values()]
        learned = "learning" if setting["lr"] else "control"
        head = [setting["clients"], setting["partition"], setting["part"], setting["prior"], learned]
        bits = [f"{by_round[number]['up_bpp']:.3f}" for number in SHOWN]
        mean = sum(line["up_bpp"] for line in by_round.values()) / ROUNDS
        scores = [f"{mean:.3f}", f"{100 * run.summary['accuracy']:.1f}", f"{100 * run.summary['model_accuracy']:.1f}"]
        table.append([*head, *bits, *scores])
        if setting["lr"]:
            accuracy.append([*head[:-1], *(f"{100 * by_round[number]['accuracy']:.1f}" for number in SHOWN)])
        print(*table[-1], flush=True)
    who = ["clients", "partition", "take part", "prior"]
    bits_table = markdown(
        [*who, "", *(f"bpp at {number}" for number in SHOWN), "mean bpp", "accuracy %", "shipped file %"], table
    )
    accuracy_table = markdown([*who, *(f"% at {number}" for number in SHOWN)], accuracy)
    (HERE / "curve.md").write_text(f"{bits_table}\n\nAccuracy by round of the runs that learn:\n\n{accuracy_table}\n")
    with open(HERE / "curve.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/curve"))
