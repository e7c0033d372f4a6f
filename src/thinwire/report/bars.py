"""Tables of stacked bars, a row a run: what a total consists of, as a bar and in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from thinwire.report.tables import MISSING

COLOURS = ("#4a6f94", "#8fb0cf", "#c9a45c", "#7f9b7a", "#b98a8a", "#8f88b0", "#6e7a83", "#b9c0c6")

Totals = Mapping[str, Mapping[str, float]]  # run -> name -> number


def swatch(colour: str, kind: str = "") -> str:
    """Give a small square of a colour, the key to a line or a bar."""
    return f'<i class="swatch {kind}" style="background:{colour}"></i>'


def bar_table(
    totals: Totals, heads: Mapping[str, str], write: Callable[[float], str], last: str, longest: float | None = None
) -> str:
    """Write runs as bars, and numbers below `heads` (name -> heading, in order); `last` heads each run's sum.

    A bar of `longest` takes the whole width; without it every bar does, so that shares show. A name that no run has
    more than 0 of is left out; nothing is written where that leaves none.
    """
    names = [name for name in heads if any(total.get(name) for total in totals.values())]
    if not names:
        return ""
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    head = "".join(f'<th class="number">{swatch(colours[name])}{escape(heads[name])}</th>' for name in names)
    rows = ""
    for label, total in totals.items():
        cells = "".join(_cell(heads[name], total.get(name), write, colours[name]) for name in names)
        whole = sum(total.get(name, 0) for name in names)
        rows += (
            f'<tr><td data-label="Run">{escape(label)}</td>'
            f'<td class="wide"><div class="bar">{_bar(total, colours, longest or whole)}</div></td>'
            f"{cells}{_cell(last, whole, write)}</tr>"
        )
    return (
        f'<table class="bars"><thead><tr><th>Run</th><th></th>{head}<th class="number">{escape(last)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _bar(total: Mapping[str, float], colours: Mapping[str, str], longest: float) -> str:
    return "".join(
        f'<i style="background:{colour};width:{100 * total[name] / longest:.2f}%"></i>'
        for name, colour in colours.items()
        if total.get(name)
    )


def _cell(heading: str, value: float | None, write: Callable[[float], str], colour: str = "") -> str:
    mark = swatch(colour, "small") if colour else ""
    return f'<td class="number" data-label="{escape(heading)}">{mark}{write(value) if value else MISSING}</td>'
