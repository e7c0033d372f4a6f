"""What the terminal shows: progress of a run, tables, the last word of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import typer


class Show:
    """Progress of a run: a live line on a terminal, a plain line a round elsewhere."""

    def __init__(self, rounds: int) -> None:
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
        self.entry, self.before, self.done = (
            "",
            0,
            0,
        )  # of a suite: the entry shown, rounds of those before, of this one
        self.first: tuple[int, float] | None = None  # the first round shown and when

    def __enter__(self) -> Show:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.progress.stop()
        if kind is KeyboardInterrupt:  # typer ends with exit code 130 and no word
            typer.echo("stopped; rounds that were committed are kept: thinwire resume RUN goes on", err=True)

    def round(self, entry: Any, rounds: int) -> None:
        """Show a round that was committed."""
        from thinwire.report import human_bytes

        text = (
            f"accuracy {100 * entry.accuracy:5.2f} %  up {entry.up_bpp:.3f} bpp  down {entry.down_bpp:.3f} bpp  "
            f"{human_bytes(entry.total_bytes)} so far"
        )
        self.progress.update(self.task, completed=entry.round, description=text)
        if not self.console.is_terminal:
            typer.echo(f"round {entry.round}/{rounds}  {text}{self._time_left(entry.round, rounds)}", err=True)
        for drop in entry.dropped:
            self.console.print(f"round {entry.round}: client {drop['client']} dropped: {drop['reason']}", markup=False)

    def entry_round(self, name: str, entry: Any, rounds: int) -> None:
        """Show a committed round of one entry of a suite; the bar counts the rounds of all."""
        if name != self.entry:
            self.entry, self.before = name, self.before + self.done
            typer.echo(f"{name}:", err=True)
        self.done = rounds
        self.round(entry, rounds)
        self.progress.update(self.task, completed=self.before + entry.round)

    def _time_left(self, round: int, rounds: int) -> str:
        """Seconds to go at the pace so far; empty until there is a pace."""
        now = perf_counter()
        first, began = self.first = self.first or (round, now)
        return f"  {(now - began) / (round - first) * (rounds - round):.0f} s left" if round > first else ""


def print_result(out: Path) -> None:
    """The final table of a run."""
    from thinwire.report import read_run, summary_rows

    (row,) = summary_rows([read_run(out)])
    print_table(("", ""), [(name, text) for name, text in row.items() if text])
    typer.echo(f"report: {out / 'report.html'}")


def print_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Rows under headers; no header line when all headers are empty."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, box=box.SIMPLE, show_header=any(headers), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
