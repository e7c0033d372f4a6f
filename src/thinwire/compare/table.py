"""The rows of a comparison: what the runs of every entry reached and cost, means over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinwire.compare.measures import ACCURACIES, BYTES_TO, SECONDS_TO, columns, interval, mean, measure, pareto
from thinwire.compare.suite import Plan, Planned
from thinwire.errors import DataError
from thinwire.report import Run, Tell, divergence, read_run

Row = dict[str, Any]
NAMES = ("method", "uplink", "downlink")
CI = "_ci95"  # behind the name of a column: half the width of its 95 % interval
PERSONAL, LINK = "personal_accuracy", "link_seconds"
DONE, FAILED = "done", "failed: "


@dataclass
class Results:
    """The table's rows, and the runs that can be shown on a page, finished or not."""

    rows: list[Row] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


def results(plan: Plan, failed: Mapping[str, str], tell: Tell) -> Results:
    """Read all runs of a plan; `failed` says why those that did not end failed, `tell` hears what cannot be read."""
    found, why = dict[str, Run](), dict(failed)
    for run in plan.runs:
        if not run.folder.exists():  # it failed before it began
            continue
        try:
            found[run.label] = read_run(run.folder)
        except DataError as error:
            why.setdefault(run.label, str(error))
            tell(str(error))
    for label, there in found.items():
        if said := divergence(there.summary["diverged_in_round"]):
            why.setdefault(label, said)
    for remark in (remark for run in found.values() for remark in run.remarks):
        tell(remark)
    entries = dict.fromkeys(run.entry for run in plan.runs)
    rows = [_row([run for run in plan.runs if run.entry == entry], found, why, plan.targets) for entry in entries]
    return Results(_without_empty(_marked(rows)), list(found.values()))


def _row(planned: Sequence[Planned], found: Mapping[str, Run], why: Mapping[str, str], targets: Sequence[float]) -> Row:
    """One entry's line: means over the runs that ended; bytes and seconds to a target only if all of them did."""
    ended = [found[run.label] for run in planned if run.label in found and run.label not in why]
    failed = [run for run in planned if run.label in why]
    row: Row = {"entry": planned[0].entry, **_names(planned[0], found), "seeds": len(ended)}
    measured = [measure(run, targets) for run in ended]
    for key in columns(targets):
        values = [numbers[key] for numbers in measured]
        row[key] = None if failed and key.startswith((BYTES_TO, SECONDS_TO)) else mean(values)
        if key in ACCURACIES:
            row[key + CI] = interval(values)
    status = FAILED + "; ".join(_reason(run, why) for run in failed) if failed else DONE
    return row | {"pareto": False, "status": status}


def _names(planned: Planned, found: Mapping[str, Run]) -> Row:
    """What an entry calls its method and codecs, as far as its first run got to say it."""
    summary = found[planned.label].summary if planned.label in found else {}
    return {name: summary.get(name) for name in NAMES} | {"method": planned.experiment.method["name"]}


def _reason(run: Planned, why: Mapping[str, str]) -> str:
    """Why a run failed, on one line, with its seed where the entry has several."""
    reason = " ".join(why[run.label].split())
    return reason if run.label == run.entry else f"{run.folder.name}: {reason}"


def _marked(rows: list[Row]) -> list[Row]:
    """The rows with those on the front marked; one with a failed run is on none."""
    whole = [row["status"] == DONE and None not in (row["accuracy"], row["total_bytes"]) for row in rows]
    points = [(row["accuracy"], row["total_bytes"]) if ok else None for row, ok in zip(rows, whole, strict=True)]
    return [{**row, "pareto": best} for row, best in zip(rows, pareto(points), strict=True)]


def _without_empty(rows: list[Row]) -> list[Row]:
    """The rows without intervals, personal accuracy and a link's seconds where no entry has any."""
    unknown = {key for key in rows[0] if all(row[key] is None for row in rows)}
    empty = {key for key in unknown if key in (PERSONAL, LINK) or key.endswith(CI)}
    empty |= {key for key in unknown if key.startswith(SECONDS_TO) and LINK in unknown}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]
