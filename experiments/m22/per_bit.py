"""Accuracy per bit: which (family, M, R, density) of M22 buys most, beside a uniform quantiser and TinyScript?

Per-bit accuracy = (accuracy − accuracy of the untrained model) / total bits up, at equal total bits: every codec's
density is set, on a first update of this very task, so that the update has the bytes of the budget; what each run
then really sent is in the table. MNIST, MLP, 10 clients × 2,000 images, Dirichlet 0.5, SGD 0.05, batch 32, 10 rounds.

    python experiments/m22/per_bit.py [FOLDER]      from the repository's root; about 40 minutes on 2 cores

Writes per_bit.csv and per_bit.md beside this script; what is there already is not run again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import thinwire as tw
from thinwire.api import settings
from thinwire.codecs import Context, from_config
from thinwire.layout import Layout
from thinwire.report import read_run
from thinwire.runtime.experiment import parse
from thinwire.runtime.run import Assembly, assemble
from thinwire.tensors import layout_of
from thinwire.train import evaluate

HERE = Path(__file__).parent
COMMON: dict[str, Any] = {
    "data": "experiments.subsets:mnist_20000", "clients": 10, "partition": "dirichlet:0.5", "model": "mlp",
    "optimizer": "sgd", "lr": 0.05, "batch_size": 32, "local_epochs": 1, "rounds": 10,
}  # fmt: skip
# Bits per parameter of an update, error feedback -> seeds.
BUDGETS = {(0.1, True): (0, 1), (0.1, False): (0,)}


def common(seed: int = 0) -> Assembly:
    """The task with FedAvg and no loss."""
    return assemble(parse(settings(method="fedavg", seed=seed, **COMMON)))


@dataclass(frozen=True)
class Entry:
    """One codec: its name in the table and its configuration without a density."""

    family: str
    magnitude: str
    bits: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Short name of the run's folder."""
        return f"{self.family}-M{self.magnitude}-R{self.bits}"


def entries() -> Iterator[Entry]:
    """M22 in both families, TinyScript (Weibull, M = 0), the uniform quantiser behind the same roles and top-k."""
    for bits in (1, 2, 4):
        for family, magnitude in product(("gennorm", "weibull"), (0.0, 2.0, 4.0)):
            config = {"id": "m22", "family": family, "magnitude": magnitude, "bits": bits}
            name = "tinyscript" if (family, magnitude) == ("weibull", 0.0) else family
            yield Entry(name, f"{magnitude:g}", bits, config)
        kept = {"id": "topk", "scope": "global", "values": {"id": "uniform", "bits": bits}}
        yield Entry("uniform", "-", bits, {"id": "by-role", "weights": kept})


def first_update(layout: Layout) -> np.ndarray:
    """A client's change of round 1, without loss: what the densities are set on.  # (n,)."""
    assembly = common()
    method = assembly.method
    state = method.init()
    held = method.receive(method.broadcast(state, None), None, None)
    frame, _, _ = method.train(held, {}, assembly.client_data(0))
    assert layout.size == state.weights.size
    return method.read(state, 0, frame).value


def at_density(config: dict[str, Any], keep: float) -> dict[str, Any]:
    """The configuration with its density, that of the weights where roles are told apart."""
    if "weights" in config:
        return {**config, "weights": {**config["weights"], "keep": keep}}
    return {**config, "keep": keep}


def density(config: dict[str, Any], update: np.ndarray, layout: Layout, budget: float) -> float:
    """The `keep` at which the update has `budget` bits a parameter, by bisection; 1 when all of it fits."""
    low, high = 1e-5, 1.0
    for _ in range(30):
        keep = (low * high) ** 0.5
        payload = from_config(at_density(config, keep)).encode(update, Context(layout))
        low, high = (keep, high) if 8 * len(payload) < budget * update.size else (low, keep)
    return float(f"{low:.3g}")


def play(entry: Entry, keep: float, budget: float, feedback: bool, seed: int, folder: Path) -> dict[str, Any]:
    """Run one codec unless its summary is there. -> summary.json."""
    out = folder / f"{entry.name}-{budget:g}-{'ef' if feedback else 'plain'}-{seed}"
    if not (out / "summary.json").exists():
        uplink = {**at_density(entry.config, keep), "error_feedback": feedback}
        tw.run("fedavg", **COMMON, uplink=uplink, seed=seed, out=out, force=out.exists(), workers=1)
    return dict(read_run(out).summary)


def main(folder: Path) -> None:
    """Run everything, write the table and the lines behind it."""
    layout = layout_of(common().build())
    update = first_update(layout)
    lines: list[list[Any]] = []
    untrained = {seed: evaluate_untrained(seed) for seed in (0, 1)}
    columns = ["budget_bpp", "error_feedback", "family", "M", "R", "keep", "seed", "accuracy", "up_bpp", "gain_per_bit"]
    for (budget, feedback), entry in product(BUDGETS, entries()):
        keep = density(entry.config, update, layout, budget)
        for seed in BUDGETS[budget, feedback]:
            summary = play(entry, keep, budget, feedback, seed, folder)
            gain = (summary["accuracy"] - untrained[seed]) / (8 * summary["up_bytes"])
            lines.append(
                [budget, feedback, entry.family, entry.magnitude, entry.bits, keep, seed,
                 summary["accuracy"], summary["mean_up_bpp"], gain]
            )  # fmt: skip
            print(*lines[-1], flush=True)
    with open(HERE / "per_bit.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    (HERE / "per_bit.md").write_text(markdown(lines))


def evaluate_untrained(seed: int) -> float:
    """Accuracy of the model that a seed makes."""
    assembly = common(seed)
    test = assembly.dataset.test
    return evaluate(assembly.method.model(assembly.method.init()), test.x, test.y)["accuracy"]


def markdown(lines: list[list[Any]]) -> str:
    """One table a budget, best codec first: means over the seeds; 1e-9 accuracy a bit is one point per 10 Mbit."""
    parts = []
    for budget, feedback in BUDGETS:
        rows: dict[tuple[Any, ...], list[list[Any]]] = {}
        for line in lines:
            if line[:2] == [budget, feedback]:
                rows.setdefault(tuple(line[2:6]), []).append(line)
        ranked = sorted(rows.items(), key=lambda item: -mean(line[9] for line in item[1]))
        head = "| family | M | R | density | accuracy % | bits/parameter up | accuracy per Gbit |"
        table = [head, "| --- " * 7 + "|"]
        for (family, magnitude, bits, keep), runs in ranked:
            table.append(
                f"| {family} | {magnitude} | {bits} | {keep:g} | {100 * mean(run[7] for run in runs):.2f} "
                f"| {mean(run[8] for run in runs):.4f} | {1e9 * mean(run[9] for run in runs):.3f} |"
            )
        title = f"{budget:g} bit a parameter, error feedback {'on' if feedback else 'off'}"
        parts.append(f"{title}:\n\n" + "\n".join(table))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/per_bit"))
