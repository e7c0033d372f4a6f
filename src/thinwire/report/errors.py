"""What the updates of each run lost in coding, as a part of the report page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from thinwire.report.runs import Run
from thinwire.report.tables import significant

NOTE = (
    "‖x − x̂‖² / ‖x‖² of each accepted update x, as its client measured it: 0 is exact, 1 is as far off as sending "
    "nothing. Under error feedback x includes what earlier frames lost."
)


def errors_list(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Say what the updates of each run lost, as HTML; empty where nothing was lost, or nothing measured."""
    lines = [_line(label, run) for label, run in zip(labels, runs, strict=True)]
    found = "".join(f"<li>{escape(line)}</li>" for line in lines if line)
    return f'<h2>Error of the updates</h2><ul>{found}</ul><p class="note">{NOTE}</p>' if found else ""


def _line(label: str, run: Run) -> str:
    """One run's mean and largest error, and how many updates missed their target."""
    rows = [row for row in run.rounds if row["nmse"] is not None]
    if not any(row["nmse"] for row in rows):
        return ""
    mean, worst = sum(row["nmse"] for row in rows) / len(rows), max(row["worst_nmse"] or 0 for row in rows)
    missed = sum(row["missed"] or 0 for row in rows)
    target = f"; {missed:.0f} updates missed the codec's target" if missed else ""
    return f"{label}: mean {_error(mean)}, largest {_error(worst)}{target}"


def _error(value: float) -> str:
    return significant(value) if value >= 1e-3 else f"{value:.1e}"
