"""The report: one self-contained HTML file about one run or many."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from thinwire.errors import DataError, shown
from thinwire.report import links, parts
from thinwire.report.breakdown import message_table, part_table
from thinwire.report.charts import BOTH, Figure, accuracy_by_bytes, accuracy_by_client, bpp_by_round, byte_views
from thinwire.report.density import density_by_layer
from thinwire.report.errors import errors_list
from thinwire.report.runs import Run, Tell, read_runs, total_bytes
from thinwire.report.tables import human_bytes, percent, run_labels, text_or_missing
from thinwire.report.template import PAGE, SCRIPT, STYLE

PLOTLY_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
}
TABLE_NOTE = (
    "Total bytes: both directions, headers, set-up rounds, keyframes and evaluation included. "
    "bpp: bits per parameter, mean over the rounds; 8 × bytes of a frame / parameters of the dense model that the "
    "method stands for. File accuracy and model bpp are those of the model file, read back."
)
PERSONAL_NOTE = (
    "Each client scores the model that it would use, its personal part included, on samples of its own that it never "
    "trained on. Last evaluation of the run."
)
MESSAGE_NOTE = (
    "All bytes of the run. Set-up: answers before training, the saliencies of SSFL for example. Requests: for a "
    "keyframe. Refused: what the server did not accept. Envelopes (4 bytes a message) count with what they hold."
)
PART_NOTE = (
    "All accepted answers, set-up included. Positions: which entries are sent. Mask: bits. Labels: which level an "
    "entry has. Values: entries as numbers. Tables: what the rest is coded by (counts, histograms, centroids, scales). "
    "Headers: of payloads. Frame: header, table of sections, checksum."
)
LINK_NOTE = (
    "Time of a round: 2 · latency + 8 · bytes down / rate down + 8 · bytes up / rate up, for the mean bytes of a "
    "client that was asked; [link] in a run takes the slowest client's instead. Left out: training, evaluation, the "
    "latency of a second message to a client that asked for a keyframe, the server's own link."
)
ENERGY_NOTE = (
    "Energy of a client's radio, mJ, for b Mbit at t Mbit/s in one direction: α · b + β · b / t. Power model "
    "α_u · t_u + α_d · t_d + β mW of Huang et al., “A Close Examination of Performance and Power Characteristics of "
    "4G LTE Networks”, MobiSys 2012, Table 4. Promotion and tail of the radio are left out: a lower bound."
)
STAGE_NOTE = "Summed over rounds and clients: more than the time passed where clients ran side by side."
FOOTER = "Written by thinwire. Every byte counted here was received and decoded by the other side."


def to_stderr(reason: str) -> None:
    """Say on stderr what is left out of a report, and why."""
    print(f"left out: {shown(reason, 2000)}", file=sys.stderr)


def write_report(runs: Sequence[str | Path], out: str | Path, tell: Tell = to_stderr) -> Path:
    """Write one page about the run folders `runs` to `out`, at once or not at all; returns `out`.

    A folder named twice is shown once; `tell` hears of folders and lines that cannot be read. Missing folders above
    `out` are made.

    Raises:
        DataError: no run is given, none can be read, or `out` cannot be written.
    """
    folders = {Path(path).resolve(): Path(path) for path in runs}
    if not folders:
        raise DataError("a report needs at least one run folder")
    return save_page(read_runs(folders.values(), tell), Path(out))


def save_page(runs: Sequence[Run], out: Path) -> Path:
    """Write the page about runs that are read, at once or not at all; DataError when `out` cannot be written."""
    text = render(runs)
    try:
        _replace(out, text)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from None
    return out


def render(runs: Sequence[Run]) -> str:
    """Give the whole page about `runs` as HTML text; the same runs give the same text."""
    labels = run_labels(runs)
    title = _title(runs)
    charts = _charts(runs, labels) + _personal(runs, labels)
    body = [f'<h1>{escape(title)}</h1><p class="lead">{escape(_lead(runs))}</p>', _summary(runs), charts]
    body += [_bytes(runs, labels), errors_list(runs, labels), _links(runs, labels), _stages(runs, labels)]
    body += [_dropped(runs, labels), _repeat(runs, labels), f"<footer>{FOOTER}</footer>"]
    plotly = _plotly_script() if charts else ""
    texts = {"style": STYLE, "script": SCRIPT, "plotly": plotly, "data": _data(runs), "body": "\n".join(body)}
    return PAGE.substitute(title=escape(title), **texts)


def _data(runs: Sequence[Run]) -> str:
    """What page.js computes from, as JSON that cannot end a script element."""
    data = {"views": byte_views(runs), "runs": links.crossings(runs), "radios": links.RADIOS}
    return json.dumps(data).replace("<", "\\u003c")


def _title(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return f"Comparison of {len(runs)} runs"
    summary = runs[0].summary
    return f"{text_or_missing(summary.get('method'))} on {text_or_missing(summary.get('data'))}"


def _lead(runs: Sequence[Run]) -> str:
    """Say the result in one line: the only run's, or that of the most accurate one where all saw the same data."""
    known = [run for run in runs if run.summary.get("accuracy") is not None and total_bytes(run) is not None]
    if not known:
        return "No round is finished yet."
    data = sorted({text_or_missing(run.summary.get("data")) for run in runs})
    if len(data) > 1:
        return f"On {', '.join(data)}."
    best = max(known, key=lambda run: run.summary["accuracy"])
    result = f"{percent(best.summary['accuracy'])} accuracy for {human_bytes(total_bytes(best) or 0)}"
    if len(runs) > 1:
        return f"Highest: {result} ({run_labels(runs)[runs.index(best)]})."
    rounds = len(best.rounds)
    return f"{result} in {rounds} round{'' if rounds == 1 else 's'}{'' if best.finished else ', unfinished'}."


def _summary(runs: Sequence[Run]) -> str:
    return f'{parts.summary_table(runs)}<p class="note">{TABLE_NOTE}</p>'


def _charts(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Lay out the charts that have something to show, each with its key; empty where none has."""
    choice = parts.choice("bytes", byte_views(runs), BOTH)
    accuracy = _chart("Accuracy by bytes", accuracy_by_bytes(runs, labels), "accuracy", labels, choice)
    bound = any(row["up_bpp_marginal"] for run in runs for row in run.rounds)
    up_figure = bpp_by_round(runs, labels, "up_bpp", "up_bpp_marginal")
    up = _chart("Uplink, client to server", up_figure, "up", labels, bound=bound)
    down = _chart("Downlink, server to client", bpp_by_round(runs, labels, "down_bpp"), "down", labels)
    density = _chart("Density by layer", density_by_layer(runs, labels), "density", labels)
    return accuracy + (f'<div class="pair">{up}{down}</div>' if up and down else up + down) + density


def _personal(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Show what clients reach on their own samples; empty where no run was evaluated so."""
    above = f'{parts.personal_table(runs, labels)}<p class="note">{PERSONAL_NOTE}</p>'
    figure = accuracy_by_client(runs, labels)
    return _chart("Accuracy on each client's own samples", figure, "clients", labels, above)


def _chart(
    heading: str, figure: Figure | None, div_id: str, labels: Sequence[str], above: str = "", *, bound: bool = False
) -> str:
    """Lay out a chart with its key, and what stands above both; empty where there is nothing to draw."""
    if figure is None:
        return ""
    from plotly.io import to_html

    drawing = to_html(
        figure, config=PLOTLY_CONFIG, include_plotlyjs=False, full_html=False, div_id=f"chart-{div_id}", validate=False
    )
    key = parts.legend(labels, {trace["meta"] for trace in figure["data"]}, bound)
    return f"<figure><h2>{heading}</h2>{above}{key}{drawing}</figure>"


def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _bytes(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Show where the bytes go, by message and inside the updates; empty where no round is known."""
    messages = _noted("Where the bytes go", message_table(runs, labels), MESSAGE_NOTE)
    return messages + _noted("Inside the updates", part_table(runs, labels), PART_NOTE)


def _links(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Show time and energy over links that the reader chooses; empty where no ledger says who took part."""
    notes = f'<p class="note">{LINK_NOTE}</p><p class="note">{ENERGY_NOTE}</p>'
    above = links.controls() + links.link_table(runs, labels) + notes
    return _chart("Over a link of your choice", links.accuracy_by_seconds(runs, labels), "link", labels, above)


def _noted(heading: str, table: str, note: str) -> str:
    return f'<h2>{heading}</h2>{table}<p class="note">{note}</p>' if table else ""


def _stages(runs: Sequence[Run], labels: Sequence[str]) -> str:
    return _noted("Seconds by stage", parts.stage_table(runs, labels), STAGE_NOTE)


def _dropped(runs: Sequence[Run], labels: Sequence[str]) -> str:
    count = sum(len(row["dropped"]) for run in runs for row in run.rounds)
    if not count:
        return ""
    summary = f"<summary>{count} updates asked for and not merged</summary>"
    return f"<h2>Dropped clients</h2><details open>{summary}{parts.dropped_table(runs, labels)}</details>"


def _repeat(runs: Sequence[Run], labels: Sequence[str]) -> str:
    sections = [parts.repeat(run, label, index) for index, (run, label) in enumerate(zip(runs, labels, strict=True))]
    return f"<h2>Repeat</h2>{''.join(sections)}"


def _replace(out: Path, text: str) -> None:
    """Write to a name of our own beside `out`, then rename, so that no reader meets half a page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")  # JSON may hold half a surrogate pair
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
