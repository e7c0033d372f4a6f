"""Charts as plain plotly figures (dicts), drawn from the rounds of runs; plotly itself is not needed here.

Every text that comes from a run is escaped, because plotly reads the text of a chart as HTML.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from thinwire.report.personal import shares
from thinwire.report.runs import Run
from thinwire.report.tables import human_bytes, percent, significant

Figure = dict[str, Any]

# Middle tones: each keeps a contrast of about 3:1 or more on both the light and the dark page.
RUN_COLOURS = (
    "#3f7ac4",
    "#d9762b",
    "#3a9a62",
    "#c9504a",
    "#8a68c4",
    "#1f9aa8",
    "#c7629f",
    "#8c8f1f",
    "#95694a",
    "#7b8794",
    "#5a62d8",
    "#b8860b",
)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BOTH = "both"
BYTE_AXES = {"up": "bytes up so far", "down": "bytes down so far", BOTH: "bytes so far, both directions"}
ACCURACY_AXIS = {"title": {"text": "accuracy (%)"}}
BOUND_MARK = {"symbol": "line-ew-open", "size": 16}  # seen only where one round leaves no line to dash
MOST_TICKS = 6
MOST_MARKERS = 200  # clients of a run that are drawn as dots; more make a line
LADDERS = (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 6), ((1,), 300))  # steps, decades


def run_colour(index: int) -> str:
    """Give the colour of the run at `index`, the same in every chart and table."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def accuracy_by_bytes(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Draw accuracy (%) against all bytes so far (log axis), a line a run; None without a point to draw."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        points = [(row["total_bytes"], 100 * row["accuracy"]) for row, _ in _so_far(run)]
        traces += line_of_run(index, label, points, [_cost_note(row, crossed) for row, crossed in _so_far(run)])
    if not traces:
        return None
    return on_axes(traces, _bytes_axis(BOTH, [trace["x"] for trace in traces]), ACCURACY_AXIS, height=420)


def byte_views(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """What `accuracy_by_bytes` is redrawn with for the bytes of one direction or both, by name.

    `x`: the lines' data; `layout`: keys of a plotly layout, dotted. A direction without bytes is left out.
    """
    crossed = [points for run in runs if (points := [point for _, point in _so_far(run)])]
    lines = {name: [[point[name] for point in points] for points in crossed] for name in BYTE_AXES}
    return {
        name: {"x": x, "layout": {f"xaxis.{key}": value for key, value in _bytes_axis(name, x).items()}}
        for name, x in lines.items()
        if any(map(any, x))
    }


def bpp_by_round(runs: Sequence[Run], labels: Sequence[str], key: str, bound_key: str | None = None) -> Figure | None:
    """Draw bits per parameter of `key` by round and, dashed, the theoretical bound of `bound_key`; None if empty."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        traces += _bpp_trace(index, run, label, key)
        if bound_key:
            bound = _bpp_trace(index, run, f"{label}, bound", bound_key)
            traces += [{**trace, "line": {**trace["line"], "dash": "dash"}, "marker": BOUND_MARK} for trace in bound]
    if not traces:
        return None
    y_axis = _bpp_axis([y for trace in traces for y in trace["y"]])
    return on_axes(traces, count_axis("round", traces), y_axis, height=340)


def accuracy_by_client(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Draw each client's own accuracy (%), the lowest first, against its place among the clients; None without any."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        points = [(x, 100 * c.accuracy) for x, c in zip(shares(run.clients), run.clients, strict=True)]
        notes = [
            f"{percent(c.accuracy)} of {c.test_samples} sample{'' if c.test_samples == 1 else 's'} · client {c.client}"
            for c in run.clients
        ]
        mode = "markers" if len(points) <= MOST_MARKERS else "lines"
        traces += [
            {**trace, "mode": mode, "line": {**trace["line"], "shape": "hvh"}}
            for trace in line_of_run(index, label, points, notes)
        ]
    if not traces:
        return None
    x_axis = {"title": {"text": "clients, from the lowest to the highest (%)"}, "range": [0, 100]}
    return on_axes(traces, x_axis, ACCURACY_AXIS, height=300)


def log_ticks(low: float, high: float) -> list[float]:
    """Give two to six round values within [low, high], 0 < low; where fewer than two fit, the two or more around it."""
    for steps, stride in LADDERS:
        ladder = [step * 10.0**decade for decade in range(-300, 301, stride) for step in steps]
        first, end = bisect_left(ladder, low), bisect_right(ladder, high)
        if end - first < 2:
            first, end = bisect_right(ladder, low) - 1, max(bisect_left(ladder, high), bisect_right(ladder, low)) + 1
        if end - first <= MOST_TICKS:
            break
    return ladder[first:end]


def _so_far(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """Rounds with an accuracy, and all bytes until their end: up, down, and both with evaluation."""
    up = down = 0.0
    for row in run.rounds:
        up, down = up + (row["up_bytes"] or 0), down + (row["down_bytes"] or 0)
        if row["accuracy"] is not None and (row["total_bytes"] or 0) > 0:
            yield row, {"up": up, "down": down, BOTH: row["total_bytes"]}


def _cost_note(row: dict[str, Any], crossed: dict[str, float]) -> str:
    up, down, both = map(human_bytes, crossed.values())
    return f"{percent(row['accuracy'])} · round {row['round']}<br>{up} up · {down} down · {both} in all"


def _bytes_axis(name: str, lines: Sequence[Sequence[float]]) -> Figure:
    axis = log_axis([x for line in lines for x in line if x > 0], lambda n: human_bytes(n, digits=1))
    return {**axis, "title": {"text": f"{BYTE_AXES[name]} (log scale)"}}


def _bpp_trace(index: int, run: Run, label: str, key: str) -> list[Figure]:
    points = [(row["round"], row[key]) for row in run.rounds if (row[key] or 0) > 0]
    return line_of_run(
        index, label, points, [f"{significant(bpp)} bits per parameter · round {n}" for n, bpp in points]
    )


def line_of_run(index: int, label: str, points: Sequence[tuple[float, float]], notes: Sequence[str]) -> list[Figure]:
    """Give one line as a list, empty where there is no point; `meta` is the run that the page shows or hides."""
    if not points:
        return []
    colour = run_colour(index)
    x, y = zip(*points, strict=True)
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(points) == 1 else "lines",
        "x": list(x),
        "y": list(y),
        "name": escape(label),
        "meta": index,
        "text": [f"<b>{escape(label)}</b><br>{note}" for note in notes],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
    }
    return [line]


def count_axis(title: str, traces: Sequence[Figure]) -> Figure:
    """Number whole things from 1 only, however few there are."""
    last = max(x for trace in traces for x in trace["x"])
    few = {"dtick": 1, "range": [0.5, last + 0.5]} if last <= MOST_TICKS else {}
    return {"title": {"text": title}, "tickformat": "d", **few}


def _bpp_axis(values: Sequence[float]) -> Figure:
    """Start the axis at zero, or make it logarithmic where one line would press another flat."""
    if max(values) <= 20 * min(values):
        return {"title": {"text": "bits per parameter"}, "range": [0, 1.08 * max(values)]}
    axis = log_axis(values, lambda value: f"{value:.10f}".rstrip("0").rstrip("."))
    return {**axis, "title": {"text": "bits per parameter (log scale)"}}


def log_axis(values: Sequence[float], write: Callable[[float], str]) -> Figure:
    """Span values above 0 by a logarithmic axis of a few round ticks."""
    ticks = log_ticks(min(values), max(values))
    low, high = math.log10(min(*values, ticks[0])), math.log10(max(*values, ticks[-1]))
    room = 0.03 * (high - low)
    limits = [low - room, high + room]
    return {"type": "log", "tickvals": ticks, "ticktext": [write(tick) for tick in ticks], "range": limits}


def on_axes(traces: list[Figure], x_axis: Figure, y_axis: Figure, height: int) -> Figure:
    """Put lines on quiet axes; the page's style sheet gives ink and rules their light or dark colour."""
    quiet = {"zeroline": False, "showline": False, "ticks": "", "automargin": True}
    layout = {
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 28, "b": 44},
        "font": {"family": FONT, "size": 12},
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {**quiet, "showgrid": False, **x_axis},
        "yaxis": {**quiet, **y_axis},
    }
    return {"data": traces, "layout": layout}
