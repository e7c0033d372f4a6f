"""Runs as rows of text: the same table for a terminal, a README and the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinwire.errors import shown
from thinwire.report.runs import Run, total_bytes

MISSING = "–"
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(n: float, digits: int = 3) -> str:
    """Write a byte count in decimal units with `digits` significant digits: 1_210_000 is "1.21 MB", 12 is "12 B"."""
    value = float(n)
    if abs(value) < 1000:
        return f"{value:.0f} B"
    step = 1
    while abs(float(significant(value / 1000**step, digits))) >= 1000 and step + 1 < len(BYTE_UNITS):
        step += 1
    return f"{significant(value / 1000**step, digits)} {BYTE_UNITS[step]}"


def significant(value: float, digits: int = 3) -> str:
    """Write a number with `digits` significant digits and no exponent: 0.03125 is "0.0313", 1234.5 is "1234"."""
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def percent(fraction: float) -> str:
    """Write a fraction of one as a percentage: 0.97531 is "97.53 %"."""
    return f"{100 * fraction:.2f} %"


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the shortest end of its path that no other run shares, so that legends stay short."""
    parts = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        labels = [shown("/".join(part[-depth:])) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{shown(run.path.name)} ({number})" for number, run in enumerate(runs, 1)]


def summary_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Give one row a run, header -> text: what was run, how well it does, and what it cost in bytes.

    bpp is bits per parameter of the dense model that the method stands for, a client's frame headers included.
    """
    rows = [_summary_row(label, run) for label, run in zip(run_labels(runs), runs, strict=True)]
    if not any(row["Diverged"] for row in rows):
        return [{header: cell for header, cell in row.items() if header != "Diverged"} for row in rows]
    return rows


def personal_row(label: str, run: Run) -> dict[str, str]:
    """Give what clients reach on samples that they never trained on: means over clients, samples, and the worst."""
    summary = run.summary
    return {
        "Run": label,
        "Mean over clients": _show(percent, summary.get("personal_accuracy")),
        "Mean over samples": _show(percent, summary.get("personal_accuracy_weighted")),
        "Worst tenth of clients": _show(percent, summary.get("personal_worst_decile")),
        "Clients": text_or_missing(summary.get("evaluated_clients")),
    }


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Write rows of one shape as a Markdown table, columns of numbers to the right; no rows give an empty text."""
    if not rows:
        return ""
    headers = list(rows[0])
    rule = ["---:" if numeric_column(rows, header) else "---" for header in headers]
    cells = [[_markdown_cell(row[header]) for header in headers] for row in rows]
    lines = [[_markdown_cell(header) for header in headers], rule, *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def numeric_column(rows: Sequence[Mapping[str, str]], header: str) -> bool:
    """Whether every cell below `header` is a number (a unit may follow) or missing, with at least one number."""
    cells = [row[header] for row in rows]
    return all(cell == MISSING or _reads_as_number(cell) for cell in cells) and any(cell != MISSING for cell in cells)


def text_or_missing(value: object) -> str:
    """Write a value on one line that prints, or the mark of a missing one: a ledger may come from elsewhere."""
    return MISSING if value is None else shown(" ".join(str(value).split()))


def _summary_row(label: str, run: Run) -> dict[str, str]:
    summary = run.summary
    return {
        "Run": label if run.finished else f"{label} (unfinished)",
        "Method": text_or_missing(summary.get("method")),
        "Uplink": text_or_missing(summary.get("uplink")),
        "Model": text_or_missing(summary.get("model")),
        "Data": text_or_missing(summary.get("data")),
        "Rounds": text_or_missing(summary.get("rounds")),
        "Accuracy": _show(percent, summary.get("accuracy")),
        "Diverged": f"in round {summary['diverged_in_round']}" if summary.get("diverged_in_round") else "",
        "File accuracy": _show(percent, summary.get("model_accuracy")),
        "Total bytes": _show(human_bytes, total_bytes(run)),
        "Up bpp": _show(significant, summary.get("mean_up_bpp")),
        "Down bpp": _show(significant, summary.get("mean_down_bpp")),
        "Model file": _show(human_bytes, summary.get("model_bytes")),
        "Model bpp": _show(significant, summary.get("model_bpp")),
    }


def _show(write: Any, value: float | None) -> str:
    return MISSING if value is None else write(value)


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell.partition(" ")[0])
    except ValueError:
        return False
    return True


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
