"""Playing a suite: what is not done is played, the others left, and all that there is becomes one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from thinwire import api
from thinwire.compare import files, table
from thinwire.compare.jobs import OnRunRound, side_by_side
from thinwire.compare.suite import Plan, Planned, asked_file, check, plan
from thinwire.errors import ConfigError, ThinwireError
from thinwire.files import check_folder
from thinwire.report import Tell, to_stderr
from thinwire.runtime.experiment import parse, read_file
from thinwire.runtime.lock import held
from thinwire.runtime.run import CONFIG, OnRound
from thinwire.runtime.trust import names

# What ends one run and leaves the others alone: our own errors, a full disk or memory, and what torch and functions of
# the user's own raise.
FAILURES = (
    ThinwireError, OSError, MemoryError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError,
    AttributeError, AssertionError,
)  # fmt: skip


def compare(
    suite: Mapping[str, Any],
    out: Path,
    *,
    workers: int | None = None,
    jobs: int = 1,
    on_round: OnRunRound | None = None,
    tell: Tell = to_stderr,
) -> list[dict[str, Any]]:
    """Plan a suite and play it: see `plan` and `play`."""
    return play(plan(suite, out), workers=workers, jobs=jobs, on_round=on_round, tell=tell)


def play(
    plan: Plan,
    *,
    workers: int | None = None,
    jobs: int = 1,
    on_round: OnRunRound | None = None,
    tell: Tell = to_stderr,
) -> list[dict[str, Any]]:
    """Play what is not done, `jobs` runs at a time, and write table and page beside the runs. -> the table's rows.

    A run that fails leaves the others alone; its row has the reason. Its `workers` train the clients of a run played
    alone, runs side by side have one each. ConfigError or DataError for a wrong setting, before anything trains;
    ThinwireError when another process works in the directory.
    """
    if jobs > 1 and workers not in (None, 1):
        raise ConfigError("workers", workers, "1 where several runs are played at a time")
    check(plan)
    show = on_round or (lambda *_: None)
    with held(plan.out):
        plan.ask()
        failed = side_by_side(plan.pending, jobs, show) if jobs > 1 else _in_turn(plan.pending, workers, show)
        return files.write(plan.out, table.results(plan, failed, tell))


def play_run(folder: Path, workers: int | None, on_round: OnRound) -> None:
    """Start the run that was asked for, or go on with it after its last committed round."""
    asked = parse(read_file(asked_file(folder)))  # by the suite, which is the user's own
    if (folder / CONFIG).exists():
        check_folder(folder)
        trust = names(parse(read_file(folder / CONFIG))) == names(asked)
        api.resume(folder, workers=workers, on_round=on_round, trust=trust)
    else:
        api.execute(asked, folder, workers=workers, on_round=on_round)


def reason(error: BaseException) -> str:
    """Why a run failed, on one line; an error that is not ours with its type."""
    said = " ".join(str(error).split())
    return said if isinstance(error, ThinwireError | OSError) else f"{type(error).__name__}: {said}"


def _in_turn(runs: Sequence[Planned], workers: int | None, on_round: OnRunRound) -> dict[str, str]:
    """-> why runs failed, by label."""
    failed = {}
    for run in runs:
        try:
            play_run(run.folder, workers, partial(on_round, run.label))
        except FAILURES as error:
            failed[run.label] = reason(error)
    return failed
