"""Where the bytes go, exactly: by what messages are for, and by what the bytes of updates are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinwire.report.bars import bar_table
from thinwire.report.runs import Run
from thinwire.report.tables import human_bytes

UP, DOWN, EVALUATION = "up", "down", "evaluation"
MESSAGES = {
    "up update": "up: updates",
    "up setup": "up: set-up",
    "up request": "up: requests",
    "up refused": "up: refused",
    UP: "up, not told apart",
    "down keyframe": "down: keyframes",
    "down step": "down: steps",
    DOWN: "down, not told apart",
    EVALUATION: "evaluation",
}
PARTS = ("positions", "mask", "labels", "values", "buffers", "tables", "headers", "frame")


def message_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write all bytes of each run by the sort of message; a ledger of before the sorts has the two directions."""
    return _table(runs, labels, _by_message, MESSAGES)


def part_table(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Write the bytes of each run's accepted updates by part; runs whose ledger has no parts are left out."""
    return _table(runs, labels, _by_part, {part: part for part in PARTS})


def _table(
    runs: Sequence[Run], labels: Sequence[str], add_up: Callable[[Run], Counter[str]], known: Mapping[str, str]
) -> str:
    totals = {label: total for label, run in zip(labels, runs, strict=True) if (total := add_up(run)).total()}
    others = sorted({name for total in totals.values() for name in total} - set(known))
    return bar_table(totals, {**known, **{name: name for name in others}}, human_bytes, "all")


def _by_message(run: Run) -> Counter[str]:
    total = Counter[str]()
    for row in run.rounds:
        _add(total, UP, row)
        _add(total, DOWN, row)
        total[EVALUATION] += row["evaluate_bytes"] or 0
    return total


def _add(total: Counter[str], way: str, row: Mapping[str, Any]) -> None:
    """Add the bytes of one direction in one round, told apart where the ledger does."""
    for sort, count in row[f"{way}_by_sort"].items():
        total[f"{way} {sort}"] += count or 0
    if not row[f"{way}_by_sort"]:
        total[way] += row[f"{way}_bytes"] or 0


def _by_part(run: Run) -> Counter[str]:
    total = Counter[str]()
    for row in run.rounds:
        total.update({part: count or 0 for part, count in row["up_parts"].items()})
    return total
