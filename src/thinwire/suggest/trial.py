"""What is tried: the candidates that fit, the budget, the rungs. Wrong settings show before anything trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from thinwire import compare, parameterisations
from thinwire.errors import ConfigError
from thinwire.report import Run, read_run
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.run import ROUNDS
from thinwire.suggest.budget import Budget, read_budget
from thinwire.suggest.halving import most_rounds, rungs

CANDIDATES = Path(__file__).with_name("candidates.toml")


@dataclass(frozen=True)
class Trial:
    """A suite of candidates, a run each; those that do not fit data or model are left out, with the reason."""

    suite: Mapping[str, Any]
    plan: compare.Plan
    budget: Budget
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[str, compare.Planned]:
        """The candidates' runs by name."""
        return {run.entry: run for run in self.plan.runs}

    @property
    def limits(self) -> list[int]:
        """Rounds that a candidate has had after each rung."""
        return rungs(max(run.experiment.rounds for run in self.plan.runs))

    @property
    def rounds(self) -> int:
        """The most rounds that all candidates play together."""
        return most_rounds(len(self.runs), self.limits)


def played(run: compare.Planned) -> Run | None:
    """A candidate's run as far as it has been played; None before it has begun."""
    return read_run(run.folder) if (run.folder / ROUNDS).exists() else None


def prepare(
    options: Mapping[str, Any],
    out: Path,
    *,
    budget: str | None = None,
    deadline: str | None = None,
    candidates: Sequence[str] = (),
) -> Trial:
    """A trial of the known good combinations, or of those that `candidates` name as `compare` does.

    `options`: nested settings of all candidates; what a candidate says itself stays. ConfigError or DataError for what
    is wrong with the request, or with every candidate; what is wrong with some leaves these out.
    """
    amount = read_budget(budget, deadline)
    suite = compare.read(candidates or [str(CANDIDATES)], options)
    if "seeds" in suite:
        raise ConfigError("seeds", suite["seeds"], "no list: candidates are tried with one seed")
    wrong = dict(compare.parsed(suite)[1])
    plan = _plan(suite, wrong, out)
    wrong |= compare.misfits(plan, _fits)
    trial = Trial(suite, _plan(suite, wrong, out), amount, {name: str(error) for name, error in wrong.items()})
    if amount.unit == "seconds" and any(run.experiment.link is None for run in trial.plan.runs):
        raise ConfigError("deadline", deadline, "only with links: --link UP/DOWN/LATENCY, or a section [link]")
    return trial


def _plan(suite: Mapping[str, Any], wrong: Mapping[str, compare.Wrong], out: Path) -> compare.Plan:
    """The runs of a suite without the entries that are wrong; their error where all are."""
    if set(wrong) == set(suite["entries"]):
        compare.refuse(wrong, set(wrong))
    entries = {name: fragment for name, fragment in suite["entries"].items() if name not in wrong}
    return compare.plan({**suite, "entries": entries}, out)


def _fits(assembly: Assembly) -> None:
    """ConfigError when a parameterisation would leave every weight of the model as it is."""
    how = assembly.setup.parameterisation
    if how and all(row.rank is None for row in parameterisations.plan(assembly.build(), how)):
        raise ConfigError("parameterisation.name", how.id, "only for a model that has fewer parameters with factors")
