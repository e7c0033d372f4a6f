"""The command line: parse, call, print. Exit codes: 0 done, 2 wrong usage or configuration, 1 failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from thinwire.errors import ConfigError, DataError, ThinwireError

app = typer.Typer(
    help="Federated learning over a thin wire: one model, many clients, the fewest real bytes.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

Text = str | None
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that train clients. Default: one a core.")]


@app.command()
def run(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file (TOML); options go on top of it.")] = None,
    method: Annotated[Text, typer.Option(help="A method or a preset; see `thinwire methods`.")] = None,
    uplink: Annotated[Text, typer.Option(help="Codec from client to server; see `thinwire codecs`.")] = None,
    downlink: Annotated[Text, typer.Option(help="Codec from server to client.")] = None,
    data: Annotated[Text, typer.Option(help="A name, a folder with Parquet files, or module:function.")] = None,
    model: Annotated[Text, typer.Option(help="A name or module:function.")] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients.")] = None,
    partition: Annotated[Text, typer.Option(help="iid, dirichlet:ALPHA, shards:K, natural:COLUMN, contiguous.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Fraction of the clients in a round.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds.")] = None,
    local_epochs: Annotated[int | None, typer.Option(help="Passes over a client's data in a round.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a local step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Local learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    device: Annotated[Text, typer.Option(help="auto, cpu or cuda.")] = None,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/METHOD-DATA-MODEL-SEED.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the file.")] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Leave clients without samples out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in the directory.")] = False,
) -> None:
    """Train a model and leave the run in a directory: ledger, summary, model file, report page."""
    from thinwire.api import execute, settings
    from thinwire.runtime.experiment import assignment, merge, parse, read_file

    options: dict[str, Any] = settings(
        data=data, model=model, method=method, uplink=uplink, downlink=downlink, clients=clients, partition=partition,
        fraction=fraction, rounds=rounds, local_epochs=local_epochs, batch_size=batch_size, lr=lr, seed=seed,
        device=device, allow_empty=allow_empty or None,
    )  # fmt: skip
    nested = merge(read_file(experiment) if experiment else {}, options)
    for text in set_ or []:
        nested = merge(nested, assignment(text))
    parsed = parse(nested)
    out = out or Path("runs") / "-".join(
        map(_word, (parsed.method["name"], parsed.data.source, parsed.model.source, parsed.seed))
    )
    with _Show(parsed.rounds) as show:
        result = execute(parsed, out, workers=workers, force=force, on_round=show.round)
    _print_result(result.out)


@app.command()
def resume(run: Annotated[Path, typer.Argument(help="Run directory.")], workers: Workers = None) -> None:
    """Go on with a run that was stopped, with the very bytes of the unbroken run."""
    from thinwire import api
    from thinwire.runtime.experiment import parse, read_file

    rounds = parse(read_file(run / "config.toml")).rounds
    with _Show(rounds) as show:
        result = api.resume(run, workers=workers, on_round=show.round)
    _print_result(result.out)


@app.command()
def report(
    run: Annotated[list[Path], typer.Argument(help="Run directories.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one page about one or several runs."""
    from thinwire.report import write_report

    typer.echo(write_report(run, out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
) -> None:
    """Write the model of a run's last committed round: seed + mask for fedpm, else safetensors."""
    from thinwire.runtime import run as runs

    path, size, bpp = runs.export(run, out)
    typer.echo(f"{path}: {size:,} bytes, {bpp:.3f} bits per parameter")


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="A frame or a model file.")]) -> None:
    """Show the parts of a frame or a model file, and what each weighs."""
    from thinwire.runtime.inspection import parts

    _table(("part", "bytes", "what"), parts(file))


@app.command()
def methods(
    name: Annotated[Text, typer.Argument(help="A preset or method to print as an experiment file.")] = None,
) -> None:
    """List the methods and presets, or print what one stands for."""
    from thinwire.runtime import catalogue

    if name:
        typer.echo(catalogue.method_toml(name))
    else:
        _table(("method", "what"), catalogue.methods())


@app.command()
def codecs() -> None:
    """List the codecs."""
    from thinwire.runtime import catalogue

    _table(("codec", "for", "what"), catalogue.codecs())


@app.command()
def models() -> None:
    """List the models."""
    from thinwire.runtime import catalogue

    _table(("model", "parameters", "what"), catalogue.models())


@app.command()
def datasets() -> None:
    """List the data sets."""
    from thinwire.runtime import catalogue

    _table(("data", "what"), catalogue.datasets())


class _Show:
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
        self.first: tuple[int, float] | None = None  # the first round shown and when

    def __enter__(self) -> _Show:
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

    def _time_left(self, round: int, rounds: int) -> str:
        """Seconds to go at the pace so far; empty until there is a pace."""
        now = perf_counter()
        first, began = self.first = self.first or (round, now)
        return f"  {(now - began) / (round - first) * (rounds - round):.0f} s left" if round > first else ""


def _word(value: object) -> str:
    """A part of a directory's name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in Path(str(value)).name)


def _print_result(out: Path) -> None:
    from thinwire.report import read_run, summary_rows

    (row,) = summary_rows([read_run(out)])
    _table(("", ""), [(name, text) for name, text in row.items() if text])
    typer.echo(f"report: {out / 'report.html'}")


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, box=box.SIMPLE, show_header=any(headers), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)


def main() -> None:
    """Entry point; every error of ours is one line. Functions of one's own are looked for in the working directory."""
    sys.path.insert(0, os.getcwd())
    try:
        app(standalone_mode=True)
    except (ConfigError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (ThinwireError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
