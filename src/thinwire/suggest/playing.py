"""Playing a trial: every candidate as far as its rung, from where it stopped; what was stopped goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from thinwire import api, compare
from thinwire.errors import ConfigError, ThinwireError
from thinwire.report import divergence
from thinwire.runtime.ledger import Round
from thinwire.runtime.lock import held
from thinwire.suggest import files
from thinwire.suggest.budget import Row
from thinwire.suggest.halving import Score, Standing, halve, score
from thinwire.suggest.suggestion import Suggestion
from thinwire.suggest.trial import Trial, played, prepare


class _Enough(Exception):
    """A run has played the rounds of its rung, or used up its budget; it may go on later."""


def suggest(
    *,
    out: str | Path,
    budget: str | None = None,
    deadline: str | None = None,
    candidates: Sequence[str] = (),
    workers: int | None = None,
    on_round: compare.OnRunRound | None = None,
    **options: Any,
) -> Suggestion:
    """Prepare a trial and play it: see `prepare` and `play`. Options are those of `thinwire.run`."""
    trial = prepare(api.settings(**options), Path(out), budget=budget, deadline=deadline, candidates=candidates)
    return play(trial, workers=workers, on_round=on_round)


def play(trial: Trial, *, workers: int | None = None, on_round: compare.OnRunRound | None = None) -> Suggestion:
    """Halve the candidates and leave table, page and the suggested experiment beside their runs.

    ConfigError when every candidate's first round costs more than the budget, ThinwireError when none could be trained
    or another process works in the directory.
    """
    show = on_round or (lambda *_: None)
    with held(trial.plan.out):
        trial.plan.ask()
        standings = halve(list(trial.runs), trial.limits, partial(_play_to, trial, workers, show))
        best = standings[0]
        if best.score.accuracy is None:
            raise _nothing(trial, standings)
        return files.write(Suggestion(trial, standings, _rows(trial.runs[best.name])[: best.score.played]))


def _play_to(trial: Trial, workers: int | None, show: compare.OnRunRound, name: str, limit: int) -> Score:
    """Take one candidate up to so many rounds, unless it is there, and score these."""
    run = trial.runs[name]

    def watch(entry: Round, rounds: int) -> None:
        show(run.label, entry, rounds)
        if _enough(trial, run, limit):
            raise _Enough

    try:
        if not _enough(trial, run, limit):
            with suppress(_Enough):
                compare.play_run(run.folder, workers, watch)
        so_far = played(run)
    except compare.FAILURES as error:
        return Score(failed=compare.reason(error))
    if so_far and (said := divergence(so_far.summary["diverged_in_round"])):
        return Score(failed=said)
    return score(so_far.rounds[:limit] if so_far else [], trial.budget)


def _enough(trial: Trial, run: compare.Planned, limit: int) -> bool:
    """Is a run where its rung wants it? One that has the rounds of the whole experiment is let finish."""
    rows = _rows(run)
    last = len(rows) >= run.experiment.rounds
    return run.done or (not last and (len(rows) >= limit or trial.budget.used_up(rows)))


def _rows(run: compare.Planned) -> Sequence[Row]:
    """The ledger of a run so far."""
    so_far = played(run)
    return so_far.rounds if so_far else []


def _nothing(trial: Trial, standings: Sequence[Standing]) -> ThinwireError:
    """Why there is nothing to suggest."""
    first = {standing.name: cost for standing in standings if (cost := standing.score.first_cost) is not None}
    if first:
        cheapest = min(first, key=lambda name: first[name])
        field = "budget" if trial.budget.unit == "bytes" else "deadline"
        least = f"at least {trial.budget.text(first[cheapest])}, which is what {cheapest} takes in its first round"
        return ConfigError(field, str(trial.budget), least)
    return ThinwireError(f"no candidate could be trained; {standings[0].name}: {standings[0].score.failed}")
