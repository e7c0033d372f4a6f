"""A suggestion for people: the table of all candidates, the experiment with its curve, and what they do not say."""

from __future__ import annotations

from thinwire.report import human_bytes, markdown_table, percent
from thinwire.report.tables import MISSING, significant, text_or_missing
from thinwire.suggest.halving import Standing
from thinwire.suggest.suggestion import Suggestion

MOST_POINTS = 8  # of the curve
CAVEAT = """\
One seed and short runs, chosen by the accuracy on the test samples: small differences between candidates say nothing,
and one that starts slowly may have left too early."""
NOTES = """
Accuracy: the best within {budget}. Bytes: all traffic until the end of that round, both directions, headers, set-up,
keyframes and evaluation. After each rung the better half goes on; rungs end after {rungs} rounds. Too dear: its first
round costs more. One that used up its budget stops there and keeps its accuracy.
"""
Row = dict[str, str]  # header -> cell


def table(suggestion: Suggestion) -> list[Row]:
    """A row a candidate that was tried, the best first."""
    timed = suggestion.trial.budget.unit == "seconds"
    return [_row(standing, timed) for standing in suggestion.standings]


def _row(standing: Standing, timed: bool) -> Row:
    score = standing.score
    row = {
        "candidate": standing.name,
        "accuracy": MISSING if score.accuracy is None else percent(score.accuracy),
        "bytes": MISSING if score.bytes is None else human_bytes(score.bytes),
        "link s": MISSING if score.cost is None else significant(score.cost),
        "in round": text_or_missing(score.round),
        "rounds played": str(score.played),
        "left after rung": _left(standing),
    }
    return row if timed else {header: cell for header, cell in row.items() if header != "link s"}


def _left(standing: Standing) -> str:
    """After which rung a candidate left, or why it never stood a chance."""
    if standing.score.failed:
        return "failed"
    if standing.score.accuracy is None:
        return "too dear"
    return "" if standing.left is None else str(standing.left)


def headline(suggestion: Suggestion) -> str:
    """The recommendation and what was measured, in one line."""
    score, budget = suggestion.best.score, suggestion.trial.budget
    cost = human_bytes(score.bytes or 0) + (f" and {budget.text(score.cost or 0)}" if budget.unit == "seconds" else "")
    measured = f"{percent(score.accuracy or 0)} for {cost} in {score.round} round{'' if score.round == 1 else 's'}"
    return f"suggested for {budget}: {suggestion.best.name}, {measured}, one seed"


def as_toml(suggestion: Suggestion) -> str:
    """The suggested experiment as a file, with what was measured at its head."""
    import tomli_w

    return f"# {headline(suggestion)}\n{tomli_w.dumps(suggestion.settings)}"


def curve(suggestion: Suggestion) -> list[Row]:
    """A row for some of the rounds, evenly spaced, the last among them."""
    points = suggestion.curve
    step = -(-len(points) // MOST_POINTS)
    some = points[(len(points) - 1) % step :: step]
    return [
        {"round": str(row["round"]), "accuracy": percent(row["accuracy"]), "bytes": human_bytes(row["bytes"])}
        for row in some
    ]


def remarks(suggestion: Suggestion) -> list[str]:
    """What else is to be said, a line each: who failed or was left out and why, what is left of the budget."""
    trial, best = suggestion.trial, suggestion.best
    failed = [f"failed: {found.name}: {found.score.failed}" for found in suggestion.standings if found.score.failed]
    left_out = [f"left out: {name}: {why}" for name, why in trial.left_out.items()]
    spent = suggestion.curve[-1]["cost"]
    more = [f"{best.name} used {trial.budget.text(spent)} of {trial.budget}: more --rounds may reach more"]
    return [*failed, *left_out, *(more if len(suggestion.curve) == trial.limits[-1] else [])]


def last_words(suggestion: Suggestion) -> str:
    """What stands at the end in the terminal."""
    out = suggestion.out
    where = f"experiment: {out / 'suggested.toml'}, table: {out / 'suggest.md'}, page: {out / 'report.html'}"
    return "\n".join([*remarks(suggestion), CAVEAT, where])


def as_markdown(suggestion: Suggestion) -> str:
    """All of it as one page of text."""
    rungs = ", ".join(map(str, suggestion.trial.limits))
    notes = NOTES.format(budget=suggestion.trial.budget, rungs=rungs)
    experiment = f"```toml\n{as_toml(suggestion)}```\n"
    told = "".join(f"- {line}\n" for line in [*remarks(suggestion), CAVEAT])
    return "\n".join([markdown_table(table(suggestion)) + notes, experiment, markdown_table(curve(suggestion)), told])
