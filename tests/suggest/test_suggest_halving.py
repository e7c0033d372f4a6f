"""Successive halving where the answers are known: candidates are curves in a table, nothing is trained."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.suggest import Budget, Score
from thinwire.suggest.halving import half, halve, most_rounds, rungs, score


def ledger(accuracies, bytes_a_round):
    """Rows of a run that costs the same in every round."""
    return [
        {"round": n, "accuracy": accuracy, "total_bytes": n * bytes_a_round} for n, accuracy in enumerate(accuracies, 1)
    ]


class Table:
    """Plays candidates from their curves, and writes down who was asked for how much."""

    def __init__(self, curves, budget):
        self.curves, self.budget, self.asked = curves, budget, []

    def __call__(self, name, limit):
        self.asked.append((name, limit))
        return score(self.curves[name][:limit], self.budget)


def test_a_known_answer():
    curves = {
        "dear": ledger([0.9] * 8, 60),  # one round within the budget, and that is the best of the first rung
        "quick": ledger([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], 10),
        "steady": ledger([0.4, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.96], 12),
        "slow": ledger([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.99], 5),  # the best after 8, gone after 1
        "huge": ledger([0.99] * 8, 101),
    }
    table = Table(curves, Budget(100))
    standings = halve(list(curves), rungs(8), table)
    assert table.asked == [
        ("dear", 1), ("quick", 1), ("steady", 1), ("slow", 1), ("huge", 1),
        ("dear", 2), ("quick", 2), ("steady", 2), ("dear", 4), ("quick", 4), ("dear", 8),
    ]  # fmt: skip
    assert [(standing.name, standing.left) for standing in standings] == [
        ("dear", None), ("quick", 3), ("steady", 2), ("slow", 1), ("huge", 1),
    ]  # fmt: skip
    assert standings[0].score == Score(0.9, 1, 60, 60, 8, 60)
    assert standings[-1].score == Score(played=1, first_cost=101)


def test_equal_accuracies_go_to_the_cheaper_one_and_to_its_earliest_round():
    curves = {"dear": ledger([0.5, 0.8], 20), "cheap": ledger([0.8, 0.8], 15)}
    first, second = halve(["dear", "cheap"], [2], Table(curves, Budget(100)))
    assert (first.name, first.score.round, first.score.cost) == ("cheap", 1, 15)
    assert (second.name, second.score.cost) == ("dear", 40)


def test_in_seconds():
    rows = [{"round": n, "accuracy": n / 10, "total_bytes": 7 * n, "link_seconds": 2.0} for n in (1, 2, 3)]
    assert score(rows, Budget(5, "seconds")) == Score(0.2, 2, 4.0, 14, 3, 2.0)
    assert score(rows, Budget(1, "seconds")) == Score(played=3, first_cost=2.0)
    assert score([], Budget(1)) == Score()


def test_rounds_that_are_not_scored_count_for_nothing():
    rows = ledger([0.1, 0.5, 0.3], 10)
    rows[1]["accuracy"] = None
    assert score(rows, Budget(100)).round == 3
    rows[2]["accuracy"] = None
    assert score(rows[1:], Budget(100)).accuracy is None


def test_one_that_fails_leaves_at_once_whoever_it_was():
    def play(name, limit):
        return Score(failed="diverged") if (name, limit) == ("best", 4) else Score({"best": 0.9, "next": 0.8}[name], 1)

    first, second = halve(["best", "next"], [1, 2, 4], play)
    assert (first.name, first.left, second.name, second.left) == ("next", 1, "best", 3)  # what is left to recommend
    first, second = halve(["best", "next"], [4, 8], play)
    assert (first.name, first.left, second.name, second.left) == ("next", None, "best", 1)


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (15, [1, 2, 4, 8, 15]), (30, [3, 6, 12, 24, 30])],
)
def test_rungs(rounds, expected):
    assert rungs(rounds) == expected


@given(st.integers(1, 2000))
def test_rungs_rise_to_all_rounds(rounds):
    found = rungs(rounds)
    assert found[-1] == rounds
    assert found == sorted(set(found))
    assert all(after <= 2 * before for before, after in pairwise(found))
    assert len(found) <= 5


curves_by_name = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.tuples(st.lists(st.integers(0, 100), min_size=12, max_size=12), st.integers(1, 50)),
    min_size=1,
    max_size=20,
)


@given(curves_by_name, st.integers(1, 12), st.integers(1, 300))
def test_what_holds_for_all_curves(found, rounds, amount):
    curves = {name: ledger([n / 100 for n in accuracies], size) for name, (accuracies, size) in found.items()}
    table, limits = Table(curves, Budget(amount)), rungs(rounds)
    standings = halve(list(curves), limits, table)
    assert sorted(standing.name for standing in standings) == sorted(curves)
    assert [standing.score.order for standing in standings] == sorted(standing.score.order for standing in standings)
    alive = len(curves)
    for rung, limit in enumerate(limits, 1):
        asked = [name for name, at in table.asked if at == limit]
        assert len(asked) == len(set(asked)) <= alive
        alive = half(len(asked))
        assert set(asked) >= {standing.name for standing in standings if standing.left == rung}
    played = {name: max(limit for who, limit in table.asked if who == name) for name in curves}
    assert sum(played.values()) <= most_rounds(len(curves), limits)
    for standing in standings:
        within = [row for row in curves[standing.name][: played[standing.name]] if row["total_bytes"] <= amount]
        assert standing.score.accuracy == max((row["accuracy"] for row in within), default=None)
        assert (standing.score.cost or 0) <= amount
    stayed = [standing.name for standing in standings if standing.left is None]
    if any(size <= amount for _, size in found.values()):
        assert standings[0].name in stayed  # scores only grow, so that nobody who left is ahead of all who stayed
    else:
        assert not stayed


@given(st.integers(1, 40), st.integers(1, 64))
def test_most_rounds_is_what_is_played_when_no_budget_ends_anyone(candidates, rounds):
    limits = rungs(rounds)
    curves = {str(n): ledger([0.5] * rounds, 1) for n in range(candidates)}
    table = Table(curves, Budget(10**9))
    halve(list(curves), limits, table)
    played = {name: max(limit for who, limit in table.asked if who == name) for name in curves}
    assert sum(played.values()) == most_rounds(candidates, limits)
