"""A run over links of one's choice: how long its messages take, and what the radio of a client spends on them.

The page computes both in the browser, for rates and a latency that its reader chooses. A client that takes part in a
round receives `down` bytes and sends `up` bytes, means over the clients that were asked. Seconds of a round:

    2 · latency + 8 · down / (10⁶ · down_mbps) + 8 · up / (10⁶ · up_mbps)

the formula of `[link]` for one message each way, where a run takes the slowest client's bytes instead of the mean.
Energy of its radio, mJ, for b Mbit at t Mbit/s in one direction: (α · t + β) · b / t = α · b + β · b / t.

Reference: Huang, Qian, Gerber, Mao, Sen, Spatscheck, "A Close Examination of Performance and Power Characteristics of
4G LTE Networks", MobiSys 2012, Table 4: power while transferring is α_u · t_u + α_d · t_d + β mW. Promotion of the
radio and its tail are left out, which makes the energy a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from thinwire.report.bars import swatch
from thinwire.report.charts import ACCURACY_AXIS, Figure, line_of_run, on_axes, run_colour
from thinwire.report.runs import Run
from thinwire.report.tables import human_bytes, percent

# α_u and α_d in mW per Mbit/s, β in mW
RADIOS = {
    "LTE": {"up": 438.39, "down": 51.97, "base": 1288.04},
    "Wi-Fi": {"up": 283.17, "down": 137.01, "base": 132.86},
    "3G": {"up": 868.98, "down": 122.12, "base": 817.88},
}
RATES, RATE = (1, 10, 100), 10  # Mbit/s
LATENCIES, LATENCY = (0, 20, 50, 200), 20  # ms, one direction
OUTPUTS = {  # what the page computes for a run, and its heading
    "roundSeconds": "Time a round",
    "seconds": "Time of the run",
    "roundJoules": "Energy a round",
    "joules": "Energy of a client over the run",
}
EVALUATION = "evaluation:"  # so begins the reason of a client that was dropped from an evaluation


def crossings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the page computes from: all clients' bytes by round, how many were asked, was the model scored; by run.

    A run whose ledger does not say how many clients took part has no rounds here.
    """
    return [_crossings(run, [row for row in run.rounds if asked(row)]) for run in runs]


def asked(row: Mapping[str, Any]) -> int:
    """How many clients a round was sent to: those whose update was accepted, those that were dropped; 0: unknown."""
    if row["clients"] is None:
        return 0
    dropped = [entry for entry in row["dropped"] if not str(entry.get("reason")).startswith(EVALUATION)]
    return int(row["clients"]) + len(dropped)


def accuracy_by_seconds(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Draw accuracy (%), a line a run, for the page to set against link time; None without a point to draw."""
    traces = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        rows = [row for row in run.rounds if asked(row) and row["accuracy"] is not None]
        points = [(row["round"], 100 * row["accuracy"]) for row in rows]
        notes = [f"{percent(row['accuracy'])} · round {row['round']}" for row in rows]
        traces += line_of_run(index, label, points, notes)
    if not traces:
        return None
    timed = [{**trace, "hovertemplate": "%{text}<br>%{customdata}<extra></extra>"} for trace in traces]
    return on_axes(timed, {"type": "log", "title": {"text": "link time (log scale)"}}, ACCURACY_AXIS, height=360)


def controls() -> str:
    """Write what a reader chooses: rates, latency, radio."""
    rates = "".join(f'<option{_chosen(rate == RATE)} value="{rate}">{rate} Mbit/s</option>' for rate in RATES)
    latencies = "".join(f'<option{_chosen(ms == LATENCY)} value="{ms}">{ms} ms</option>' for ms in LATENCIES)
    radios = "".join(f"<option>{escape(name)}</option>" for name in RADIOS)
    number = f'type="number" min="0.001" step="any" value="{RATE}" required'
    return (
        '<fieldset class="controls" id="link">'
        f'<label>Rate <select name="rate">{rates}<option value="">own</option></select></label>'
        f'<label>up <input name="up" {number}> Mbit/s</label><label>down <input name="down" {number}> Mbit/s</label>'
        f'<label>Latency <select name="latency">{latencies}</select></label>'
        f'<label>Radio <select name="radio">{radios}</select></label></fieldset>'
    )


def link_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write a row a run: mean bytes of a client's round each way, and room for what the page computes."""
    headings = ("Sent a round", "Received a round", *OUTPUTS.values())
    heads = "".join(f'<th class="number">{heading}</th>' for heading in headings)
    named = enumerate(zip(labels, crossings(runs), strict=True))
    rows = "".join(_row(index, label, crossed) for index, (label, crossed) in named if crossed["asked"])
    return f"<table><thead><tr><th>Run</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _row(index: int, label: str, crossed: Mapping[str, Any]) -> str:
    sent, received = (human_bytes(sum(crossed[way]) / sum(crossed["asked"])) for way in ("up", "down"))
    room = {heading: f'<output data-run="{index}" data-of="{key}"></output>' for key, heading in OUTPUTS.items()}
    cells = {"Sent a round": sent, "Received a round": received, **room}
    written = "".join(f'<td class="number" data-label="{head}">{cell}</td>' for head, cell in cells.items())
    return f'<tr><td data-label="Run">{swatch(run_colour(index))}{escape(label)}</td>{written}</tr>'


def _chosen(chosen: bool) -> str:
    return " selected" if chosen else ""


def _crossings(run: Run, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "up": [row["up_bytes"] or 0 for row in rows],
        "down": [row["down_bytes"] or 0 for row in rows],
        "asked": [asked(row) for row in rows],
        "scored": [row["accuracy"] is not None for row in rows],
        "clients": run.summary.get("clients"),
    }
