"""What training may cost: bytes of all traffic, or seconds over modelled links; and the texts that say so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from thinwire.errors import ConfigError
from thinwire.report import human_bytes
from thinwire.report.tables import significant

SIZES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
TIMES = {"": 1, "s": 1, "min": 60, "h": 3600}
LINK = ("up_mbps", "down_mbps", "latency_ms")
Row = Mapping[str, Any]  # a line of a ledger


@dataclass(frozen=True)
class Budget:
    """So many bytes of all traffic, both directions, or so many seconds that messages take over the links."""

    amount: float
    unit: Literal["bytes", "seconds"] = "bytes"

    def costs(self, rows: Sequence[Row]) -> list[float]:
        """What a run has cost by the end of each of its rounds."""
        if self.unit == "bytes":
            return [row["total_bytes"] for row in rows]
        return list(accumulate(row["link_seconds"] for row in rows))

    def used_up(self, rows: Sequence[Row]) -> bool:
        """Has a run of these rounds cost more?"""
        return bool(rows) and self.costs(rows)[-1] > self.amount

    def text(self, cost: float) -> str:
        """A cost for people."""
        return human_bytes(cost) if self.unit == "bytes" else f"{significant(cost)} s"

    def __str__(self) -> str:
        return self.text(self.amount)


def read_budget(budget: str | None, deadline: str | None) -> Budget:
    """The one of the two that is given, as `5MB` or `500 KiB`, `10min` or `2h`; a plain number is bytes or seconds.

    ConfigError unless exactly one is given and can be read.
    """
    if (budget is None) == (deadline is None):
        both = None if budget is None else f"{budget}, deadline = {deadline}"
        raise ConfigError("budget", both, "either a budget of bytes, as 5MB, or a deadline over links, as 10min")
    if budget is not None:
        return Budget(_amount("budget", budget, SIZES, "B, kB, MB, GB, KiB, MiB or GiB, for example 5MB"))
    return Budget(_amount("deadline", str(deadline), TIMES, "s, min or h, for example 10min"), "seconds")


def _amount(name: str, text: str, units: Mapping[str, int], allowed: str) -> float:
    found = re.fullmatch(r"\s*(\d+|\d*\.\d+)\s*([a-z]*)\s*", text, re.IGNORECASE | re.ASCII)
    if not found or found[2].lower() not in units or not float(found[1]):
        raise ConfigError(name, text, f"a number above 0, alone or with {allowed}")
    return float(found[1]) * units[found[2].lower()]


def read_link(text: str) -> dict[str, dict[str, float]]:
    """Settings of `UP/DOWN/LATENCY`: 10⁶ bit/s, 10⁶ bit/s, ms. ConfigError for another text."""
    try:
        return {"link": dict(zip(LINK, map(float, text.split("/")), strict=True))}
    except ValueError:
        raise ConfigError("link", text, "UP/DOWN/LATENCY in Mbit/s, Mbit/s and ms, for example 1/10/50") from None
