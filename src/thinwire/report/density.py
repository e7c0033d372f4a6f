"""How dense each layer of a shipped model is: `model_density` of its summary."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from thinwire.report.charts import Figure, count_axis, line_of_run, on_axes
from thinwire.report.runs import DENSITY, Run


def density_by_layer(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Draw the density (%) of each weight tensor, in the model's order, a line a run; None where all are dense."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        layers = [(name, density) for name, density in run.summary.get(DENSITY, {}).items() if density is not None]
        points = [(number, 100 * density) for number, (_, density) in enumerate(layers, 1)]
        notes = [f"{escape(name)}: {100 * density:.2f} %" for name, density in layers]
        traces += [{**trace, "mode": "lines+markers"} for trace in line_of_run(index, label, points, notes)]
    if not traces:
        return None
    y_axis = {"title": {"text": "density (%)"}, "rangemode": "tozero"}
    return on_axes(traces, count_axis("weight tensor, in the model's order", traces), y_axis, height=300)
