"""Compare: methods and codecs on the same data, models and seeds; one table, one page. What was stopped goes on."""

from __future__ import annotations

from thinwire.compare.jobs import OnRunRound
from thinwire.compare.playing import FAILURES, compare, play, play_run, reason
from thinwire.compare.shown import WIDTH, as_text, headers, last_words
from thinwire.compare.suite import (
    Plan,
    Planned,
    Wrong,
    entries,
    misfits,
    parsed,
    plan,
    processes,
    read,
    refuse,
    settings,
)
from thinwire.compare.table import DONE

__all__ = [
    "DONE",
    "FAILURES",
    "WIDTH",
    "OnRunRound",
    "Plan",
    "Planned",
    "Wrong",
    "as_text",
    "compare",
    "entries",
    "headers",
    "last_words",
    "misfits",
    "parsed",
    "plan",
    "play",
    "play_run",
    "processes",
    "read",
    "reason",
    "refuse",
    "settings",
]
