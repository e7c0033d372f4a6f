"""MkDocs: equations become MathML, which browsers draw themselves; tables of measured runs come from their CSV file.

`<!-- curves: fedavg fedpm -->` stands for a table of the last round of these entries of experiments/methods/curves.csv.
"""

from __future__ import annotations

import csv
import re
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

from latex2mathml.converter import convert

CURVES = Path(__file__).parents[1] / "experiments" / "methods" / "curves.csv"
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
TABLE = re.compile(r"<!-- curves: ([\w -]+?) -->")
LABELS = {
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


class Point(NamedTuple):
    """A run after a round: accuracy of the server's model, bytes so far each way."""

    accuracy: float
    up_bytes: int
    down_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both directions."""
        return self.up_bytes + self.down_bytes


def curves() -> dict[str, list[Point]]:
    """Every entry's points, round by round."""
    found: dict[str, list[Point]] = {}
    with open(CURVES, newline="") as file:
        for row in csv.DictReader(file):
            points = found.setdefault(row["entry"], [])
            before = points[-1] if points else Point(0, 0, 0)
            up, down = before.up_bytes + int(row["up_bytes"]), before.down_bytes + int(row["down_bytes"])
            points.append(Point(float(row["accuracy"]), up, down))
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables of runs."""
    return TABLE.sub(lambda found: table(found[1].split()), markdown)


def table(entries: list[str]) -> str:
    """Accuracy and bytes after the last round."""
    runs = curves()
    lines = ["| run | accuracy % | MB up | MB down | MB in all |", "| --- | ---: | ---: | ---: | ---: |"]
    for entry in entries:
        last = runs[entry][-1]
        megabytes = (f"{size / 1e6:.3g}" for size in (last.up_bytes, last.down_bytes, last.total_bytes))
        lines.append(f"| {LABELS[entry]} | {100 * last.accuracy:.2f} | {' | '.join(megabytes)} |")
    return "\n".join(lines)


def on_page_content(html: str, **_: Any) -> str:
    """The page with every equation as MathML."""
    return EQUATION.sub(lambda found: _mathml(found[2], block=found[1] == "div"), html)


def _mathml(latex: str, block: bool) -> str:
    made = convert(unescape(latex).strip(), display="block" if block else "inline")
    return f'<div class="equation">{made}</div>' if block else made
