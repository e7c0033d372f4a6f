"""Draws docs/figures/*.svg from committed data: python docs/figures.py, from anywhere.

Accuracy against the bytes of both directions so far, on a logarithmic axis; FedAvg with float32 is the grey line.
"""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from statistics import mean, stdev

import matplotlib
from hooks import LABELS, curves
from matplotlib import pyplot
from matplotlib.axes import Axes

HERE = Path(__file__).parent
SETTING = ("iid", "all", "beta")  # partition, who takes part, prior
PERSONAL = HERE.parent / "experiments" / "pfedpara" / "personal.csv"
T_95 = 2.776  # Student's t, 4 degrees of freedom
CODECS = HERE.parent / "benchmarks" / "results" / "thin_rate_distortion.json"
UPDATE = "lenet-dirichlet-r08"
BITS = HERE.parent / "experiments" / "fedpm" / "curve.csv"
GREY, COLOURS = "#8a8f94", ("#00897b", "#e07b00", "#5c6bc0", "#c2185b", "#7a9a01", "#8d6e63", "#0288d1")
REFERENCES = ("fedavg", "fedavg-momentum", "drift-fedavg")
COMBINED = (  # in no paper
    "fedpm", "stc-mask-both", "fedpara-stc-both", "fedpara-m22-both", "ssfl-m22-both", "thin-both",
)  # fmt: skip
MUTED = [
    {"color": colour, "linewidth": 1.0, "linestyle": style}
    for style, colour in product(("-", "--", ":"), ("#8a8f94", "#b08968", "#7d8bb5", "#79a389"))
]
HEIGHTS = {"frontier": 5.8}  # inches: room for its legend
FLOOR = 90.0  # %, where the frontier's picture begins
FIGURES = {
    "methods": ("fedavg", "fedzip", "m22", "fedpm", "ssfl", "fedpara", "sparsyfed"),
    "fedavg": ("fedavg", "fedavg-momentum", "fedzip", "m22"),
    "fedpm": ("fedavg", "fedpm"),
    "fedzip": ("fedavg", "fedzip"),
    "m22": ("fedavg", "m22"),
    "m22-magnitude": ("fedavg", "ssfl", "ssfl-m22", "ssfl-m22-large"),
    "ssfl": ("fedavg", "ssfl", "ssfl-m22"),
    "fedpara": ("fedavg-momentum", "fedpara"),
    "sparse": ("fedavg", "ssfl", "client-masks", "dispfl", "sparsyfed"),
    "drift": ("drift-fedavg", "drift-fedprox", "drift-scaffold", "drift-feddyn"),
}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "thinwire",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    "grid.color": GREY,
    "grid.alpha": 0.4,
}


def accuracy(axes: Axes, entries: tuple[str, ...]) -> None:
    """One line an entry."""
    runs, colours, labels = curves("curves"), iter(COLOURS), LABELS["curves"]
    reference = next(entry for entry in REFERENCES if entry in entries)
    for entry in entries:
        colour = GREY if entry == reference else next(colours)
        megabytes = [point.total_bytes / 1e6 for point in runs[entry]]
        percent = [100 * point.accuracy for point in runs[entry]]
        axes.plot(megabytes, percent, marker="o", markersize=3, linewidth=1.6, color=colour, label=labels[entry])
    axes.set(xscale="log", xlabel="MB, both directions so far", ylabel="accuracy %")


def frontier(axes: Axes) -> None:
    """Thin: as papers have them; thick: as none has; stairs: the best of all runs for so many bytes."""
    runs, labels, colours, greys = curves("frontier"), LABELS["frontier"], iter(COLOURS), iter(MUTED)
    for entry, points in runs.items():
        combined = entry in COMBINED
        look = {"color": next(colours), "linewidth": 2.2} if combined else next(greys)
        megabytes = [point.total_bytes / 1e6 for point in points]
        percent = [100 * point.accuracy for point in points]
        axes.plot(megabytes, percent, label=labels[entry], zorder=3 if combined else 2, **look)
    points = sorted((point.total_bytes / 1e6, 100 * point.accuracy) for points in runs.values() for point in points)
    megabytes, percent = zip(*points, strict=True)
    best = list(accumulate(percent, max))
    axes.step(megabytes, best, ":", where="post", color=GREY, label="best of all for so many bytes")
    axes.set(xscale="log", xlabel="MB, both directions so far", ylabel="accuracy %")
    axes.set(xlim=(0.2, None), ylim=(FLOOR, 99.5))


def bits(axes: Axes) -> None:
    """FedPM's uplink by round, and that of runs that learn nothing."""
    with open(BITS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["partition"], row["part"], row["prior"]) == SETTING]
    for clients, colour in zip(("5", "10", "40", "100"), COLOURS, strict=False):
        for learns, line in ((True, "-"), (False, ":")):
            shown = [row for row in rows if row["clients"] == clients and (float(row["lr"]) > 0) == learns]
            label = f"{clients} clients" if learns else f"{clients}, control"
            bpp = [float(row["up_bpp"]) for row in shown]
            axes.plot([int(row["round"]) for row in shown], bpp, line, color=colour, label=label, linewidth=1.6)
    axes.set(xlabel="round", ylabel="bits per parameter up", ylim=(0, None))


def personal(axes: Axes) -> None:
    """Personal methods after their last round: mean and 95 % interval over five seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    with open(PERSONAL, newline="") as file:
        for row in csv.DictReader(file):
            megabytes = (int(row["up_bytes"]) + int(row["down_bytes"])) / 1e6
            found.setdefault(row["method"], []).append((megabytes, 100 * float(row["personal_accuracy"])))
    for (method, runs), colour in zip(found.items(), COLOURS, strict=False):
        megabytes, percent = zip(*runs, strict=True)
        half = T_95 * stdev(percent) / len(percent) ** 0.5
        shown = GREY if method == "fedavg" else colour
        axes.errorbar(mean(megabytes), mean(percent), half, fmt="o", capsize=3, color=shown, label=method)
    axes.set(xscale="log", xlabel="MB, both directions, 40 rounds", ylabel="accuracy of the clients' own models %")


def thin(axes: Axes) -> None:
    """Error against size of one client's update through thin, NNC and the other codecs."""
    rows = [row for row in json.loads(CODECS.read_text())["rows"] if row["update"] == UPDATE and row["nmse"] > 1e-4]
    colours = iter(COLOURS[1:])
    for codec in dict.fromkeys(row["codec"] for row in rows):
        points = sorted((row["bits a parameter"], row["nmse"]) for row in rows if row["codec"] == codec)
        thick = codec.startswith("thin")
        look = {"color": COLOURS[0] if thick else next(colours), "linestyle": ":" if "," in codec and thick else "-"}
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=2.2 if thick else 1.2, label=codec, **look)
    axes.set(xscale="log", yscale="log", xlabel="bits a parameter", ylabel="error / energy", ylim=(5e-4, 1.1))


def main(folder: Path) -> None:
    """Draw all of them."""
    drawn = {name: partial(accuracy, entries=entries) for name, entries in FIGURES.items()}
    folder.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        others = {"frontier": frontier, "fedpm-bits": bits, "personal": personal, "thin": thin}
        for name, draw in {**drawn, **others}.items():
            figure, axes = pyplot.subplots(figsize=(6.4, HEIGHTS.get(name, 4.2)), layout="constrained")
            draw(axes)
            figure.legend(loc="outside lower center", ncols=2, fontsize=9)
            figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
            pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "figures")
