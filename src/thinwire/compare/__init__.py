"""Compare: methods and codecs on the same data, models and seeds; one table, one page. What was stopped goes on."""

from __future__ import annotations

from thinwire.compare.playing import compare, play
from thinwire.compare.shown import WIDTH, as_text, headers, last_words
from thinwire.compare.suite import Plan, entries, plan, processes, read
from thinwire.compare.table import DONE

__all__ = [
    "DONE",
    "WIDTH",
    "Plan",
    "as_text",
    "compare",
    "entries",
    "headers",
    "last_words",
    "plan",
    "play",
    "processes",
    "read",
]
