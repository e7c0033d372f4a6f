"""What a trial found: the candidates, best first, and the experiment of the best with its measured curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinwire import compare
from thinwire.suggest.budget import Row
from thinwire.suggest.halving import Standing
from thinwire.suggest.trial import Trial


@dataclass(frozen=True)
class Suggestion:
    """A trial, how its candidates stand, best first, and the ledger of the best."""

    trial: Trial
    standings: Sequence[Standing]
    rows: Sequence[Row]

    @property
    def best(self) -> Standing:
        """The most accurate within the budget; of equal ones, the cheapest."""
        return self.standings[0]

    @property
    def out(self) -> Path:
        """Where everything lies."""
        return self.trial.plan.out

    @property
    def settings(self) -> dict[str, Any]:
        """The suggested experiment: as many rounds as gave its accuracy, so that it repeats what was measured."""
        found = _given(compare.settings(self.trial.suite, self.best.name))
        return {**found, "rounds": self.best.score.round}

    @property
    def curve(self) -> list[dict[str, Any]]:
        """Accuracy by cost of the suggested experiment: a point a scored round, up to the budget."""
        costs = self.trial.budget.costs(self.rows)
        return [
            {"round": row["round"], "accuracy": row["accuracy"], "bytes": row["total_bytes"], "cost": cost}
            for row, cost in zip(self.rows, costs, strict=True)
            if cost <= self.trial.budget.amount and row["accuracy"] is not None
        ]

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "budget": asdict(self.trial.budget),
            "rungs": self.trial.limits,
            "candidates": [asdict(standing) for standing in self.standings],
            "left_out": dict(self.trial.left_out),
            "suggested": {"name": self.best.name, "settings": self.settings, "curve": self.curve},
        }


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that are None: TOML has no word for them."""
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value is not None
    }
