"""Pieces of the report page as HTML text; every text that comes from a run is escaped here."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

from thinwire.report.bars import bar_table, swatch
from thinwire.report.charts import run_colour
from thinwire.report.runs import Run
from thinwire.report.tables import human_bytes, numeric_column, personal_row, significant, summary_rows, text_or_missing

MOST_DROPPED_ROWS = 200


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


def legend(labels: Sequence[str], shown: Collection[int], bound: bool = False) -> str:
    """Name the runs that a chart shows by buttons that hide and show them; one run alone on a page needs no name."""
    keys = [
        f'<button type="button" data-run="{index}" aria-pressed="true">'
        f"{swatch(run_colour(index))}{escape(label)}</button>"
        for index, label in enumerate(labels)
        if index in shown and len(labels) > 1
    ]
    if bound:
        keys.append('<span><i class="dash"></i>bound: coding without shared knowledge (theory, not bytes sent)</span>')
    return f'<div class="legend">{"".join(keys)}</div>' if keys else ""


def choice(name: str, options: Iterable[str], chosen: str) -> str:
    """Write options of which one is chosen, side by side; one option needs no choice."""
    buttons = [
        f'<label><input type="radio" name="{name}" value="{option}"{" checked" if option == chosen else ""}>{option}'
        "</label>"
        for option in options
    ]
    return f'<fieldset class="choice">{"".join(buttons)}</fieldset>' if len(buttons) > 1 else ""


def stage_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write the seconds of each stage, summed over a run's rounds, with a bar to compare runs; empty without any."""
    totals = {label: _stage_seconds(run) for run, label in zip(runs, labels, strict=True)}
    stages = {stage for total in totals.values() for stage in total}
    ranked = sorted(sorted(stages), key=lambda stage: -sum(total.get(stage, 0) for total in totals.values()))
    heads = {stage: f"{stage.replace('_', ' ')} (s)" for stage in ranked}
    return bar_table(totals, heads, significant, "all (s)", max(sum(total.values()) for total in totals.values()))


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
    share = summary.get("error_feedback")
    feedback = (
        f", error feedback{'' if share is True else f' {share:g}'}" if isinstance(share, int | float) and share else ""
    )
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


def _dropped_rows(run: Run, label: str) -> Iterable[dict[str, str]]:
    for row in run.rounds:
        clients: dict[str, list[str]] = {}
        for entry in row["dropped"]:
            clients.setdefault(text_or_missing(entry.get("reason")), []).append(text_or_missing(entry.get("client")))
        for reason, names in clients.items():
            yield {"Run": label, "Round": str(row["round"]), "Clients": ", ".join(names), "Reason": reason}
