"""MkDocs: equations become MathML, which browsers draw themselves; tables of measured runs come from their CSV file.

`<!-- curves: fedavg fedpm -->` stands for a table of the last round of these entries of experiments/methods, with
`frontier` in place of `curves` of experiments/frontier. `<!-- zoo -->` stands for the outcomes of tests/zoo.
"""

from __future__ import annotations

import csv
import re
import sys
from html import unescape
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from latex2mathml.converter import convert

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
POINTS = {"curves": ("methods/mnist", "methods/digits"), "frontier": ("frontier/mnist",)}  # see experiments/curves.py
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
TABLE = re.compile(rf"<!-- ({'|'.join(POINTS)}): ([\w -]+?) -->")
ZOO = "<!-- zoo -->"
METHODS = {
    "fedavg": "FedAvg, float32",
    "fedzip": "FedZip pinned, 1 %, error feedback",
    "m22": "M22, M = 4, 1 bit, 1 %, error feedback",
    "fedpm": "FedPM",
    "ssfl": "SSFL, density 0.1",
    "ssfl-m22": "SSFL, M22 with M = 1 on a fifth",
    "ssfl-m22-large": "SSFL, M22 with M = 4 on a fifth",
    "fedavg-momentum": "FedAvg, float32, momentum 0.9",
    "fedpara": "FedPara, γ = 0.1, momentum 0.9",
    "client-masks": "per-client masks, density 0.1",
    "dispfl": "DisPFL, density 0.1",
    "sparsyfed": "SparsyFed, density 0.1",
    "drift-fedavg": "FedAvg",
    "drift-fedprox": "FedProx, μ = 0.1",
    "drift-scaffold": "SCAFFOLD",
    "drift-feddyn": "FedDyn, α = 0.1",
    "ssfl-m22-1": "SSFL, M22 with M = 1 on a fifth",
    "ssfl-m22-4": "SSFL, M22 with M = 4 on a fifth",
}
FRONTIER = {
    "fedavg": "FedAvg, float32",
    "signsgd": "SignSGD up",
    "terngrad": "TernGrad up",
    "qsgd": "QSGD up",
    "eden": "EDEN, 1 bit, up",
    "stc": "STC, 1/400, both ways",
    "stc-100": "STC, 1/100, both ways",
    "fedzip": "FedZip, 20 %, Huffman, up",
    "m22": "M22, 1 bit on 5 %, up",
    "ssfl": "SSFL, density 0.1",
    "fedpara": "FedPara, γ = 0.1",
    "fedpm": "FedPM with count classes",
    "stc-mask-both": "STC, 1/100, masks as positions, both ways",
    "fedpara-stc-both": "FedPara + STC, 1/50, masks as positions, both ways",
    "fedpara-m22-both": "FedPara + M22 both ways",
    "ssfl-m22-both": "SSFL + M22 both ways",
    "thin-both": "thin, error 0.5, both ways",
}
LABELS = {"curves": METHODS, "frontier": FRONTIER}


class Point(NamedTuple):
    """An entry after a round, the mean over its seeds: accuracy of the server's model, bytes so far each way."""

    accuracy: float
    up_bytes: float
    down_bytes: float

    @property
    def total_bytes(self) -> float:
        """Both directions."""
        return self.up_bytes + self.down_bytes


def curves(points: str) -> dict[str, list[Point]]:
    """Every entry's points, round by round."""
    found: dict[str, dict[str, list[Point]]] = {}
    for suite in POINTS[points]:
        with open(EXPERIMENTS / f"{suite}.csv", newline="") as file:
            for row in csv.DictReader(file):
                point = Point(float(row["accuracy"]), int(row["up_bytes"]), int(row["down_bytes"]))
                found.setdefault(row["entry"], {}).setdefault(row["round"], []).append(point)
    return {entry: [_mean(seeds) for seeds in rounds.values()] for entry, rounds in found.items()}


def _mean(points: list[Point]) -> Point:
    return Point(*(mean(values) for values in zip(*points, strict=True)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables of runs, and of what becomes of the models of the zoo."""
    if ZOO in markdown:
        markdown = markdown.replace(ZOO, zoo())
    return TABLE.sub(lambda found: table(found[1], found[2].split()), markdown)


def zoo() -> str:
    """A table a family of models."""
    sys.path.insert(0, str(EXPERIMENTS.parent))  # MkDocs does not start at the root of the project
    try:
        from tests.zoo.table import load, markdown
    finally:
        sys.path.pop(0)
    return markdown(load())


def table(points: str, entries: list[str]) -> str:
    """Accuracy and bytes after the last round."""
    runs, labels = curves(points), LABELS[points]
    lines = ["| run | accuracy % | MB up | MB down | MB in all |", "| --- | ---: | ---: | ---: | ---: |"]
    for entry in entries:
        last = runs[entry][-1]
        megabytes = (f"{size / 1e6:.3g}" for size in (last.up_bytes, last.down_bytes, last.total_bytes))
        lines.append(f"| {labels[entry]} | {100 * last.accuracy:.2f} | {' | '.join(megabytes)} |")
    return "\n".join(lines)


def on_page_content(html: str, **_: Any) -> str:
    """The page with every equation as MathML."""
    return EQUATION.sub(lambda found: _mathml(found[2], block=found[1] == "div"), html)


def _mathml(latex: str, block: bool) -> str:
    made = convert(unescape(latex).strip(), display="block" if block else "inline")
    return f'<div class="equation">{made}</div>' if block else made
