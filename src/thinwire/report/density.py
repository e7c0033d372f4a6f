"""How dense each layer of a shipped model is: read off `model.safetensors`, where a sparse model has zeros."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from thinwire.errors import DataError
from thinwire.report.charts import Figure, count_axis, line_of_run, on_axes
from thinwire.report.runs import Run

MODEL = "model.safetensors"


def densities(folder: Path) -> list[tuple[str, float]]:
    """(tensor, fraction of its entries that are not 0) of every float32 tensor of two axes or more; [] if none is 0.

    Raises:
        DataError: the model file is broken.
    """
    from safetensors import SafetensorError, deserialize

    if not (folder / MODEL).is_file():
        return []
    try:
        tensors = sorted(deserialize((folder / MODEL).read_bytes()), key=lambda named: named[0])
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder / MODEL}: cannot be read ({error})") from None
    weights = [(name, t["data"]) for name, t in tensors if t["dtype"] == "F32" and len(t["shape"]) > 1 and t["data"]]
    found = [(name, float((np.frombuffer(data, "<f4") != 0).mean())) for name, data in weights]
    return found if any(density < 1 for _, density in found) else []


def density_by_layer(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Draw the density (%) of each weight tensor, by name, a line a run; None where all are dense."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        layers = densities(run.path)
        points = [(number, 100 * density) for number, (_, density) in enumerate(layers, 1)]
        notes = [f"{escape(name)}: {100 * density:.2f} %" for name, density in layers]
        traces += [{**trace, "mode": "lines+markers"} for trace in line_of_run(index, label, points, notes)]
    if not traces:
        return None
    y_axis = {"title": {"text": "density (%)"}, "rangemode": "tozero"}
    return on_axes(traces, count_axis("weight tensor, by name", traces), y_axis, height=300)
