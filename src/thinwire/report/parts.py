"""Pieces of the report page as HTML text; every text that comes from a run is escaped here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from thinwire.report.charts import run_colour
from thinwire.report.runs import Run
from thinwire.report.tables import human_bytes, numeric_column, personal_row, significant, summary_rows, text_or_missing

STAGE_COLOURS = ("#4a6f94", "#8fb0cf", "#c9a45c", "#7f9b7a", "#b98a8a", "#8f88b0", "#6e7a83", "#b9c0c6")
MOST_DROPPED_ROWS = 200


def swatch(colour: str, kind: str = "") -> str:
    """Give a small square of a colour, the key to a line or a bar."""
    return f'<i class="swatch {kind}" style="background:{colour}"></i>'


def table(rows: Sequence[Mapping[str, str]], marks: Sequence[str] = ()) -> str:
    """Write rows of text as an HTML table; `marks` holds trusted HTML that stands before each row's first cell."""
    if not rows:
        return ""
    headers = list(rows[0])
    kinds = {header: ' class="number"' if numeric_column(rows, header) else "" for header in headers}
    head = "".join(f"<th{kinds[header]}>{escape(header)}</th>" for header in headers)
    body = "".join(
        "<tr>" + "".join(_cell(row, header, kinds[header], mark if header == headers[0] else "") for header in headers)
        for row, mark in zip(rows, marks or [""] * len(rows), strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary_table(runs: Sequence[Run]) -> str:
    """Write the table of what each run reaches and what it costs, with the colours of the charts as its key."""
    return table(summary_rows(runs), [swatch(run_colour(index)) for index in range(len(runs))])


def legend(labels: Sequence[str], bound: bool = False) -> str:
    """Name the lines of a chart by buttons that hide and show a run; one run needs no name."""
    keys = [
        f'<button type="button" data-run="{index}" aria-pressed="true">'
        f"{swatch(run_colour(index))}{escape(label)}</button>"
        for index, label in enumerate(labels)
    ]
    keys = keys if len(labels) > 1 else []
    if bound:
        keys.append('<span><i class="dash"></i>bound: coding without shared knowledge (theory, not bytes sent)</span>')
    return f'<div class="legend">{"".join(keys)}</div>' if keys else ""


def stage_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write the seconds of each stage, summed over a run's rounds, with a bar to compare runs; empty without any."""
    totals = [_stage_seconds(run) for run in runs]
    stages = sorted({stage for total in totals for stage in total}, key=lambda s: -sum(t.get(s, 0) for t in totals))
    longest = max((sum(total.values()) for total in totals), default=0)
    if not longest:
        return ""
    colours = {stage: STAGE_COLOURS[i % len(STAGE_COLOURS)] for i, stage in enumerate(stages)}
    head = "".join(f'<th class="number">{swatch(colours[stage])}{_stage_name(stage)} (s)</th>' for stage in stages)
    rows = "".join(_stage_row(label, total, colours, longest) for label, total in zip(labels, totals, strict=True))
    return (
        f'<table><thead><tr><th>Run</th><th>Time</th>{head}<th class="number">all (s)</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def dropped_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """List the clients whose update was not merged, a row a round and reason; empty if all were."""
    rows = [row for run, label in zip(runs, labels, strict=True) for row in _dropped_rows(run, label)]
    left = len(rows) - MOST_DROPPED_ROWS
    more = f'<p class="note">{left} more rows; each run\'s rounds.jsonl has them all.</p>' if left > 0 else ""
    return table(rows[:MOST_DROPPED_ROWS]) + more


def personal_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write what clients reach on samples of their own, a row a run that was evaluated so; empty without any."""
    chosen = [index for index, run in enumerate(runs) if run.summary.get("personal_accuracy") is not None]
    rows = [personal_row(labels[index], runs[index]) for index in chosen]
    return table(rows, [swatch(run_colour(index)) for index in chosen])


def repeat(run: Run, label: str, index: int) -> str:
    """Write a run's costs in a sentence, the command that repeats it, and its configuration in a fold."""
    command = f"thinwire run {shlex.quote(str(run.path / 'config.toml'))}"
    return (
        f"<section><h3>{swatch(run_colour(index))}{escape(label)}</h3>"
        f'<p class="note">{escape(costs(run))}</p><pre><code>{escape(command)}</code></pre>'
        f"<details><summary>Configuration</summary><pre>{escape(run.config_text)}</pre></details></section>"
    )


def costs(run: Run) -> str:
    """Say in one line where a run's bytes and seconds went, and how both directions were coded."""
    summary = run.summary
    names = {"up_bytes": "up", "down_bytes": "down", "evaluate_bytes": "for evaluation"}
    parts = [f"{human_bytes(summary[key])} {name}" for key, name in names.items() if summary.get(key) is not None]
    feedback = ", error feedback" if summary.get("error_feedback") is True else ""
    if summary.get("uplink") is not None:
        parts.append(f"uplink {text_or_missing(summary['uplink'])}{feedback}")
    if summary.get("downlink") is not None:
        parts.append(f"downlink {text_or_missing(summary['downlink'])}")
    if summary.get("parameters") is not None:
        parts.append(f"{summary['parameters']:,} parameters")
    if summary.get("wall_seconds") is not None:
        parts.append(f"{significant(summary['wall_seconds'])} s")
    if summary.get("link_seconds") is not None:
        parts.append(f"{significant(summary['link_seconds'])} s over the modelled links")
    return " · ".join(parts)


def _cell(row: Mapping[str, str], header: str, kind: str, mark: str) -> str:
    return f'<td{kind} data-label="{escape(header)}">{mark}{escape(row[header])}</td>'


def _stage_seconds(run: Run) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in run.rounds:
        for stage, seconds in row["seconds"].items():
            total[stage] = total.get(stage, 0.0) + max(0.0, seconds or 0.0)
    return total


def _stage_name(stage: str) -> str:
    return escape(stage.replace("_", " "))


def _stage_row(label: str, total: Mapping[str, float], colours: Mapping[str, str], longest: float) -> str:
    bar = "".join(
        f'<i style="background:{colour};width:{100 * total.get(stage, 0) / longest:.2f}%"></i>'
        for stage, colour in colours.items()
        if total.get(stage)
    )
    cells = "".join(
        f'<td class="number" data-label="{_stage_name(stage)} (s)">{swatch(colour, "small")}'
        f"{_seconds(total.get(stage))}</td>"
        for stage, colour in colours.items()
    )
    return (
        f'<tr><td data-label="Run">{escape(label)}</td><td class="wide"><div class="bar">{bar}</div></td>{cells}'
        f'<td class="number" data-label="all (s)">{_seconds(sum(total.values()))}</td></tr>'
    )


def _seconds(value: float | None) -> str:
    return text_or_missing(None if value is None else significant(value))


def _dropped_rows(run: Run, label: str) -> Iterable[dict[str, str]]:
    for row in run.rounds:
        clients: dict[str, list[str]] = {}
        for entry in row["dropped"]:
            clients.setdefault(text_or_missing(entry.get("reason")), []).append(text_or_missing(entry.get("client")))
        for reason, names in clients.items():
            yield {"Run": label, "Round": str(row["round"]), "Clients": ", ".join(names), "Reason": reason}
