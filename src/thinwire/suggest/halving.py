"""Successive halving: all candidates get a few rounds, the better half twice as many, and so on.

Reference: Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
Differs from the paper: what counts is the best accuracy so far within a budget, so that a candidate whose budget is
used up keeps its score while others go on; ties go to the cheaper one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from thinwire.suggest.budget import Budget, Row


@dataclass(frozen=True)
class Score:
    """The best that a candidate reached within the budget.

    accuracy: None where its first round costs more, or it failed. round: in which it reached it. cost: of the rounds up
    to that one, in the budget's unit. bytes: of all their traffic. played: its rounds that count here. first_cost: of
    its first round. failed: why, else empty.
    """

    accuracy: float | None = None
    round: int | None = None
    cost: float | None = None
    bytes: int | None = None
    played: int = 0
    first_cost: float | None = None
    failed: str = ""

    @property
    def order(self) -> tuple[float, float]:
        """Less is better: the more accurate one, then the cheaper one."""
        return (inf if self.accuracy is None else -self.accuracy, inf if self.cost is None else self.cost)


@dataclass(frozen=True)
class Standing:
    """A candidate's last score, and the rung that it left after, counted from 1; None if it was there to the end."""

    name: str
    score: Score
    left: int | None = None


def score(rows: Sequence[Row], budget: Budget) -> Score:
    """What a run of these rounds reached within the budget; of equal accuracies, the earliest."""
    costs = budget.costs(rows)
    scored = [row["accuracy"] is not None for row in rows]
    within = [number for number, cost in enumerate(costs) if cost <= budget.amount and scored[number]]
    first = costs[0] if costs else None
    if not within:
        return Score(played=len(rows), first_cost=first)
    best = max(within, key=lambda number: rows[number]["accuracy"])
    row = rows[best]
    return Score(row["accuracy"], row["round"], costs[best], row["total_bytes"], len(rows), first)


def rungs(rounds: int) -> list[int]:
    """Rounds that a candidate has had after each rung: an eighth of all, then twice as many each time, then all."""
    found, limit = list[int](), max(1, rounds // 8)
    while limit < rounds:
        found.append(limit)
        limit *= 2
    return [*found, rounds]


def half(count: int) -> int:
    """How many of so many candidates stay."""
    return (count + 1) // 2


def most_rounds(candidates: int, limits: Sequence[int]) -> int:
    """How many rounds all candidates play together, if no budget ends any of them."""
    total, before = 0, 0
    for limit in limits:
        total += candidates * (limit - before)
        candidates, before = half(candidates), limit
    return total


def halve(names: Sequence[str], limits: Sequence[int], play: Callable[[str, int], Score]) -> list[Standing]:
    """-> all candidates, the best first. `play(name, rounds)` takes one up to so many rounds and scores it.

    After every rung but the last, the better half stays; one without an accuracy never does.
    """
    staying, standings = list(names), dict[str, Standing]()
    for rung, limit in enumerate(limits, 1):
        scores = {name: play(name, limit) for name in staying}
        ranked = sorted(staying, key=lambda name: scores[name].order)
        kept = ranked if rung == len(limits) else ranked[: half(len(ranked))]
        staying = [name for name in kept if scores[name].accuracy is not None]
        for name in ranked:
            standings[name] = Standing(name, scores[name], None if name in staying else rung)
    return sorted(standings.values(), key=lambda standing: standing.score.order)
