"""The report: one self-contained HTML file about one run or many."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from thinwire.errors import DataError
from thinwire.report import parts
from thinwire.report.charts import Figure, accuracy_by_bytes, accuracy_by_client, bpp_by_round
from thinwire.report.density import density_by_layer
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
STAGE_NOTE = "Summed over rounds and clients: more than the time passed where clients ran side by side."
FOOTER = "Written by thinwire. Every byte counted here was received and decoded by the other side."


def to_stderr(reason: str) -> None:
    """Say on stderr what is left out of a report, and why."""
    print(f"left out: {reason}", file=sys.stderr)


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
    sections = [f'<h1>{escape(title)}</h1><p class="lead">{escape(_lead(runs))}</p>', _summary(runs), charts]
    sections += [_stages(runs, labels), _dropped(runs, labels), _repeat(runs, labels), f"<footer>{FOOTER}</footer>"]
    plotly = _plotly_script() if charts else ""
    return PAGE.substitute(title=escape(title), style=STYLE, script=SCRIPT, plotly=plotly, body="\n".join(sections))


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
    bound = any(row["up_bpp_marginal"] for run in runs for row in run.rounds)
    accuracy = _chart("Accuracy by bytes", accuracy_by_bytes(runs, labels), "accuracy", parts.legend(labels))
    up_figure = bpp_by_round(runs, labels, "up_bpp", "up_bpp_marginal")
    up = _chart("Uplink, client to server", up_figure, "up", parts.legend(labels, bound))
    down_figure = bpp_by_round(runs, labels, "down_bpp")
    down = _chart("Downlink, server to client", down_figure, "down", parts.legend(labels))
    density = _chart("Density by layer", density_by_layer(runs, labels), "density", parts.legend(labels))
    return accuracy + (f'<div class="pair">{up}{down}</div>' if up and down else up + down) + density


def _personal(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Show what clients reach on their own samples; empty where no run was evaluated so."""
    key = f'{parts.personal_table(runs, labels)}<p class="note">{PERSONAL_NOTE}</p>{parts.legend(labels)}'
    return _chart("Accuracy on each client's own samples", accuracy_by_client(runs, labels), "clients", key)


def _chart(heading: str, figure: Figure | None, div_id: str, key: str) -> str:
    if figure is None:
        return ""
    from plotly.io import to_html

    drawing = to_html(
        figure, config=PLOTLY_CONFIG, include_plotlyjs=False, full_html=False, div_id=f"chart-{div_id}", validate=False
    )
    return f"<figure><h2>{heading}</h2>{key}{drawing}</figure>"


def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _stages(runs: Sequence[Run], labels: Sequence[str]) -> str:
    stages = parts.stage_table(runs, labels)
    return f'<h2>Seconds by stage</h2>{stages}<p class="note">{STAGE_NOTE}</p>' if stages else ""


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
