"""The table of outcomes: what every cell is expected to come to, as data; read, written, shown.

outcomes.json: model -> outcome -> the ways that come to it, or "all". An outcome is `same`, `refused: MESSAGE`, or
`open` where a cell was not right when the table was recorded: then it must be what its model's entry allows.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.zoo.models import FAMILIES, MODELS
from tests.zoo.ways import NAMES, PLAIN

FILE = Path(__file__).with_name("outcomes.json")
OPEN, SAME = "open", "same"
Outcomes = dict[tuple[str, str], str]  # (model, way) -> outcome


def load() -> Outcomes:
    """The expected outcome of every cell of the file."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        (name, way): found
        for name, row in rows.items()
        for found, ways in row.items()
        for way in (NAMES if ways == "all" else ways)
    }


def rows_of(outcomes: Outcomes) -> dict[str, dict[str, str | list[str]]]:
    """model -> outcome -> ways, in the order of the zoo."""
    rows: dict[str, dict[str, str | list[str]]] = {}
    for name in MODELS:
        found: dict[str, list[str]] = {}
        for way in NAMES:
            if (name, way) in outcomes:
                found.setdefault(outcomes[name, way], []).append(way)
        rows[name] = {what: "all" if ways == NAMES else ways for what, ways in found.items()}
    return rows


def save(outcomes: Outcomes) -> None:
    """Write the file anew, without models that have left the zoo; a cell that is not right stays open."""
    here = {cell: found for cell, found in outcomes.items() if cell[0] in MODELS}
    settled = {cell: found if right(*cell, found, {}) else OPEN for cell, found in here.items()}
    FILE.write_text(json.dumps(rows_of(settled), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def right(name: str, way: str, found: str, expected: Mapping[tuple[str, str], str]) -> bool:
    """Is an outcome one that the cell may have, and the one recorded?"""
    asked, recorded = MODELS[name].right, expected.get((name, way), OPEN)
    if found.startswith("fault"):
        return False
    strict = asked == "refused" or (asked == SAME and way in PLAIN)
    return (not strict or found.split(":")[0] == asked) and recorded in (OPEN, found)


def markdown(outcomes: Outcomes) -> str:
    """A table a family: model, ways that train it, ways that refuse it and their words."""
    parts = []
    for family, entries in FAMILIES.items():
        lines = [f"### {family[0].upper()}{family[1:]}", "", "| model | trains | refused |", "| --- | --- | --- |"]
        rows = rows_of({cell: found for cell, found in outcomes.items() if cell[0] in entries})
        lines += [f"| {name} | {_trains(rows[name])} | {_refused(rows[name])} |" for name in entries]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _ways(ways: str | list[str]) -> str:
    if ways == "all":
        return "every method"
    others = [name for name in NAMES if name not in ways]
    return f"all but {', '.join(others)}" if len(others) < len(ways) else ", ".join(ways)


def _trains(row: dict[str, str | list[str]]) -> str:
    return _ways(row[SAME]) if SAME in row else "none"


def _refused(row: dict[str, str | list[str]]) -> str:
    cells = [
        f"{_ways(ways)}: {what.removeprefix('refused: ')}".replace("|", "\\|")
        for what, ways in row.items()
        if what != SAME
    ]
    return "<br>".join(cells)
