"""The table for people: the columns of the terminal, as many as fit, and all of them as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thinwire.compare.measures import ACCURACIES, BYTES_TO, SECONDS_TO, STAGES
from thinwire.compare.table import CI, DONE, Row
from thinwire.report import human_bytes, markdown_table, percent
from thinwire.report.tables import MISSING, significant, text_or_missing

WIDTH, GAP = 120, 3  # characters of the terminal's table, and at most between two columns
HEADERS = {
    "accuracy": "accuracy", "best_accuracy": "best", "model_accuracy": "file", "personal_accuracy": "personal",
    "up_bytes": "up", "down_bytes": "down", "evaluate_bytes": "evaluation", "total_bytes": "total",
    "mean_up_bpp": "up bpp", "mean_down_bpp": "down bpp", "up_ratio": "up ratio", "total_ratio": "both ratio",
    "accuracy_per_gbit": "per Gbit", "wall_seconds": "seconds", "link_seconds": "link s",
    **{f"{stage}_seconds": f"{stage.replace('_', ' ')} s" for stage in STAGES},
}  # fmt: skip
# Of the terminal, the most telling first: those at the end go where there is no room.
RANKED = (
    "entry", "pareto", "accuracy", "total_bytes", "personal_accuracy", "up_ratio", BYTES_TO, "mean_up_bpp",
    "total_ratio", "model_accuracy", SECONDS_TO, "mean_down_bpp", "wall_seconds", "seeds", "best_accuracy",
)  # fmt: skip
NOTES = f"""
`*`: no other entry is as accurate for as few bytes (Pareto front of accuracy and total bytes). Numbers are means over
the seeds; ±: half the 95 % interval of a mean (Student's t). Total, and bytes to an accuracy: both directions, headers,
set-up, keyframes and evaluation, until the end of the first round that reaches it; {MISSING}: not every seed does.
Ratios: float32 / measured, of an update, and of both directions. bpp: bits per parameter of the dense model.
Per Gbit (per-bit accuracy): 10⁹ · (accuracy − accuracy of the untrained model) / bits up; compare it only between
entries of about as many bits. Seconds of a stage are summed over rounds and clients; link seconds are those of the
model of `[link]`, without training.
"""


@dataclass(frozen=True)
class Column:
    """One column for people: its key in the rows, what stands above it, and a row's cell."""

    key: str
    header: str
    cell: Callable[[Row], str]


def columns(rows: list[Row]) -> list[Column]:
    """All columns that the rows have."""
    first = [Column("entry", "entry", lambda row: str(row["entry"])), Column("pareto", "", _mark)]
    others = [key for key in rows[0] if key not in ("entry", "pareto") and not key.endswith(CI)]
    return first + [Column(key, _header(key), partial(_cell, key)) for key in others]


def _mark(row: Row) -> str:
    return "*" if row["pareto"] else "" if row["status"] == DONE else "failed"


def _header(key: str) -> str:
    for name, unit in ((BYTES_TO, ""), (SECONDS_TO, " (s)")):
        if key.startswith(name):
            return f"to {100 * float(key.removeprefix(name)):.12g} %{unit}"
    return HEADERS.get(key, key)


def _cell(key: str, row: Row) -> str:
    value = row[key]
    if value is None or isinstance(value, str):
        return text_or_missing(value)
    if key in ACCURACIES:
        return percent(value) if row.get(key + CI) is None else f"{100 * value:.2f} ± {100 * row[key + CI]:.2f} %"
    if key == "seeds":
        return str(value)
    return human_bytes(value) if "bytes" in key else significant(value, 4)


def _fitting(rows: list[Row]) -> list[Column]:
    """The most telling columns that fit the terminal's width, in the order of the table."""
    every, chosen, left = columns(rows), set[str](), WIDTH
    for wanted in RANKED:
        for column in every:
            if column.key == wanted or (wanted in (BYTES_TO, SECONDS_TO) and column.key.startswith(wanted)):
                left -= GAP + max(len(text) for text in (column.header, *map(column.cell, rows)))
                chosen |= {column.key} if left >= 0 else set()
    return [column for column in every if column.key in chosen]


def headers(rows: list[Row]) -> tuple[str, ...]:
    """What stands above the columns of `as_text`."""
    return tuple(column.header for column in _fitting(rows))


def as_text(rows: list[Row]) -> list[tuple[str, ...]]:
    """The table of the terminal, under `headers`."""
    shown = _fitting(rows)
    return [tuple(column.cell(row) for column in shown) for row in rows]


def last_words(rows: list[Row], out: Path) -> str:
    """What stands below the table of the terminal: the mark, who failed and why, where the files are."""
    marked = ["* no other entry is as accurate for as few bytes"] if any(row["pareto"] for row in rows) else []
    failed = [f"{row['entry']} {row['status']}" for row in rows if row["status"] != DONE]
    return "\n".join([*marked, *failed, f"table: {out / 'compare.csv'}, page: {out / 'report.html'}"])


def as_markdown(rows: list[Row]) -> str:
    """All columns, and what they mean."""
    return markdown_table([{column.header: column.cell(row) for column in columns(rows)} for row in rows]) + NOTES
