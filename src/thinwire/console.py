"""What the terminal shows: progress of a run, tables, the last word of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import typer


class Show:
    """Progress of a run: a live line on a terminal, a plain line a round elsewhere."""

    def __init__(self, rounds: int, to_go_on: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("preparing", total=rounds)
        self.rounds, self.to_go_on = rounds, to_go_on
        self.done: dict[str, int] = {}  # the last round shown of each run, by its name
        self.diverged: set[str] = set()  # runs of which it has been said
        self.warned: set[str] = set()  # runs of which a missed target was said
        self.shown, self.began = 0, 0.0  # rounds shown, and when the first of them was

    def __enter__(self) -> Show:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.progress.stop()
        if kind is KeyboardInterrupt:  # typer ends with exit code 130 and no word
            typer.echo(f"stopped; rounds that were committed are kept: {self.to_go_on}", err=True)

    def round(self, entry: Any, rounds: int) -> None:
        """Show a round that was committed."""
        self.run_round("", entry, rounds)

    def run_round(self, name: str, entry: Any, rounds: int) -> None:
        """Show a committed round of one of several runs; the bar counts the rounds of all."""
        from thinwire.report import divergence, human_bytes

        accuracy = f"{'–':>7}" if entry.accuracy is None else f"{100 * entry.accuracy:5.2f} %"
        text = (
            f"accuracy {accuracy}  up {entry.up_bpp:.3f} bpp  down {entry.down_bpp:.3f} bpp  "
            f"{_error(entry)}{human_bytes(entry.total_bytes)} so far"
        )
        self.done[name] = entry.round
        which = f"{name}: " if name else ""
        self.progress.update(self.task, completed=sum(self.done.values()), description=which + text)
        if not self.console.is_terminal:
            typer.echo(f"{which}round {entry.round}/{rounds}  {text}{self._time_left()}", err=True)
        if entry.diverged and name not in self.diverged:
            self.diverged.add(name)
            self.console.print(which + divergence(entry.round), markup=False)
        if entry.missed and name not in self.warned:
            self.warned.add(name)
            self.console.print(f"{which}{missed_target(entry)}", markup=False)
        if entry.skipped:
            self.console.print(f"{which}round {entry.round} skipped: {entry.skipped}", markup=False)
        for drop in entry.dropped:
            reason = f"{which}round {entry.round}: client {drop['client']} dropped: {drop['reason']}"
            self.console.print(reason, markup=False)

    def _time_left(self) -> str:
        """Seconds to go at the pace so far; empty until there is a pace."""
        now, before = perf_counter(), self.shown
        self.shown, self.began = before + 1, self.began or now
        to_go = self.rounds - sum(self.done.values())
        return f"  {(now - self.began) / before * to_go:.0f} s left" if before else ""


def _error(entry: Any) -> str:
    """The mean error of a round's updates; empty where all were exact, or none was measured."""
    return f"error {entry.nmse:.3g}  " if entry.nmse else ""


def missed_target(entry: Any) -> str:
    """The one warning of a run whose uplink codec misses what it was asked for."""
    return (
        f"warning: round {entry.round}: {entry.missed} of {entry.clients} updates missed the target of the uplink "
        f"codec, largest error {entry.worst_nmse or 0:.3g}; rounds.jsonl has `missed` for every round"
    )


def print_result(out: Path) -> None:
    """The final table of a run."""
    from thinwire.report import read_run, summary_rows

    (row,) = summary_rows([read_run(out)])
    print_table(("", ""), [(name, text) for name, text in row.items() if text])
    typer.echo(f"report: {out / 'report.html'}")


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Rows of one shape, header -> cell; 120 characters wide where no terminal says."""
    print_table(tuple(rows[0]), [tuple(row.values()) for row in rows], 120)


def print_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int | None = None) -> None:
    """Rows under headers; no header line when all headers are empty. `width`: characters, where no terminal says."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, box=box.SIMPLE, show_header=any(headers), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, width=None if Console().is_terminal else width).print(table)
