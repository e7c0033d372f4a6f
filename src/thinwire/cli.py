"""The command line: parse, call, print. Exit codes: 0 done, 2 wrong usage or configuration, 1 failed, 130 Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinwire.console import Show, print_result, print_rows, print_table
from thinwire.errors import ConfigError, DataError, ThinwireError, TrainingError, shown

if TYPE_CHECKING:
    from thinwire.api import Result
    from thinwire.runtime.experiment import Experiment

app = typer.Typer(
    help="Federated learning over a thin wire: one model, many clients, the fewest real bytes.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

Text = str | None
Method = Annotated[Text, typer.Option(help="A method or a preset; see `thinwire methods`.")]
Uplink = Annotated[Text, typer.Option(help="Codec from client to server; see `thinwire codecs`.")]
Downlink = Annotated[Text, typer.Option(help="Codec from server to client.")]
Data = Annotated[Text, typer.Option(help="A name, a folder with Parquet files, or module:function.")]
Model = Annotated[Text, typer.Option(help="A name or module:function.")]
Clients = Annotated[int | None, typer.Option(help="Number of clients.")]
Partition = Annotated[Text, typer.Option(help="iid, dirichlet:ALPHA, shards:K, natural:COLUMN, contiguous, drawn:N.")]
Fraction = Annotated[float | None, typer.Option(help="Fraction of the clients in a round.")]
Rounds = Annotated[int | None, typer.Option(help="Number of rounds.")]
LocalEpochs = Annotated[int | None, typer.Option(help="Passes over a client's data in a round.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples of a local step.")]
Rate = Annotated[float | None, typer.Option(help="Local learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Device = Annotated[Text, typer.Option(help="auto, cpu or cuda.")]
AllowEmpty = Annotated[bool | None, typer.Option("--allow-empty", help="Leave clients without samples out.")]
Seeds = Annotated[Text, typer.Option(help="Several seeds, for example 0,1,2: a run and a directory each.")]
Targets = Annotated[Text, typer.Option(help="Accuracies, for example 0.9,0.95: bytes that each takes.")]
Jobs = Annotated[str, typer.Option(help="Runs at a time, each in a process of its own; auto: one a core.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the file.")]
Trust = Annotated[bool, typer.Option("--trust", help="Import functions that a run's folder from elsewhere names.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that train clients. Default: one a core.")]


@app.command()
def run(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file (TOML); options go on top of it.")] = None,
    method: Method = None, uplink: Uplink = None, downlink: Downlink = None, data: Data = None, model: Model = None,
    clients: Clients = None, partition: Partition = None, fraction: Fraction = None, rounds: Rounds = None,
    local_epochs: LocalEpochs = None, batch_size: BatchSize = None, lr: Rate = None, seed: Seed = None,
    device: Device = None, allow_empty: AllowEmpty = None, set_: Set = None, workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/METHOD-DATA-MODEL-SEED.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in the directory.")] = False,
    save_frames: Annotated[bool, typer.Option("--save-frames", help="Keep the last round's frames.")] = False,
    trust: Trust = False,
) -> None:  # fmt: skip
    """Train a model and leave the run in a directory. Ctrl-C ends it after the round under way, twice at once."""
    options = _options(locals(), "method", "uplink", "downlink")
    from thinwire.api import execute
    from thinwire.runtime.experiment import merge, parse, read_file
    from thinwire.runtime.trust import check

    if experiment and experiment.name == "config.toml" and (experiment.parent / "rounds.jsonl").exists():
        check(experiment.parent, _imports(experiment.parent), trust)
    parsed = parse(merge(read_file(experiment) if experiment else {}, options))
    names = (parsed.method["name"], parsed.data.source, parsed.model.source, parsed.seed)
    out = out or Path("runs") / "-".join(map(_word, names))
    with Show(parsed.rounds, f"thinwire resume {out} goes on") as show:
        result = execute(parsed, out, workers=workers, force=force, save_frames=save_frames, on_round=show.round)
    _ended(result)


@app.command()
def compare(
    suite: Annotated[list[str], typer.Argument(help="A suite file (TOML), or names of methods and presets.")],
    data: Data = None, model: Model = None, clients: Clients = None, partition: Partition = None,
    fraction: Fraction = None, rounds: Rounds = None, local_epochs: LocalEpochs = None, batch_size: BatchSize = None,
    lr: Rate = None, seed: Seed = None, seeds: Seeds = None, targets: Targets = None, device: Device = None,
    allow_empty: AllowEmpty = None, set_: Set = None, workers: Workers = None, jobs: Jobs = "1",
    out: Annotated[Path, typer.Option(help="Directory of the runs, the table and the page.")] = Path("runs/compare"),
) -> None:  # fmt: skip
    """Run several methods or codecs on the same data, model and seeds; goes on where it was stopped."""
    options = _options(locals())
    from thinwire import compare as suites

    plan = suites.plan(suites.read(suite, options, seeds, targets), out)
    with Show(plan.rounds, "the same command goes on") as show:
        rows = suites.play(plan, workers=workers, jobs=suites.processes(jobs), on_round=show.run_round)
    print_table(suites.headers(rows), suites.as_text(rows), suites.WIDTH)
    typer.echo(suites.last_words(rows, out))
    if any(row["status"] != suites.DONE for row in rows):
        raise typer.Exit(1)


@app.command()
def suggest(
    candidates: Annotated[list[str] | None, typer.Argument(help="As of compare. Default: known good ones.")] = None,
    budget: Annotated[Text, typer.Option(help="Bytes of all traffic, both directions, for example 5MB.")] = None,
    deadline: Annotated[Text, typer.Option(help="Seconds over links, for example 90s or 10min.")] = None,
    link: Annotated[Text, typer.Option(help="UP/DOWN/LATENCY of all links: Mbit/s, Mbit/s, ms.")] = None,
    data: Data = None, model: Model = None, clients: Clients = None, partition: Partition = None,
    fraction: Fraction = None, rounds: Rounds = None, local_epochs: LocalEpochs = None, batch_size: BatchSize = None,
    lr: Rate = None, seed: Seed = None, device: Device = None, allow_empty: AllowEmpty = None, set_: Set = None,
    workers: Workers = None,
    out: Annotated[Path, typer.Option(help="Directory of the runs and of what they say.")] = Path("runs/suggest"),
) -> None:  # fmt: skip
    """Try known good combinations in short runs, halve them, recommend the most accurate one within a budget."""
    options = _options(locals())
    from thinwire import suggest as trials
    from thinwire.runtime.experiment import merge

    options = merge(trials.read_link(link) if link else {}, options)
    trial = trials.prepare(options, out, budget=budget, deadline=deadline, candidates=candidates or ())
    with Show(trial.rounds, "the same command goes on") as show:
        found = trials.play(trial, workers=workers, on_round=show.run_round)
    print_rows(trials.table(found))
    typer.echo(trials.as_toml(found).rstrip())
    print_rows(trials.curve(found))
    typer.echo(trials.last_words(found))


def _options(given: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Nested settings of a command's options, those of --set on top."""
    from thinwire.api import settings
    from thinwire.runtime.experiment import assignment, merge

    names = ("data", "model", "clients", "partition", "fraction", "rounds", "local_epochs", "batch_size", "lr", "seed")
    nested = settings(**{name: given[name] for name in (*names, "device", "allow_empty", *more)})
    for text in given["set_"] or []:
        nested = merge(nested, assignment(text))
    return nested


def _imports(run: Path) -> Experiment:
    """A run's experiment; what a folder from elsewhere wants to have imported is said first."""
    from thinwire.files import check_folder
    from thinwire.runtime.experiment import parse, read_file
    from thinwire.runtime.trust import is_own, names

    if not (run / "config.toml").is_file():
        raise DataError(f"{run / 'config.toml'}: not there, this is not a run directory")
    check_folder(run)
    experiment = parse(read_file(run / "config.toml"))
    for setting, spec in names(experiment).items() if not is_own(run, experiment) else ():
        typer.echo(f"{run / 'config.toml'}: {setting} = {shown(spec)}, which is imported", err=True)
    return experiment


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Run directory.")], workers: Workers = None, trust: Trust = False
) -> None:
    """Go on with a run that was stopped, with the very bytes of the unbroken run."""
    from thinwire import api

    with Show(_imports(run).rounds, f"thinwire resume {run} goes on") as show:
        result = api.resume(run, workers=workers, on_round=show.round, trust=trust)
    _ended(result)


def _ended(result: Result) -> None:
    """The last words of a run; TrainingError, with the run's directory complete, when its model has diverged."""
    from thinwire.report import divergence

    print_result(result.out)
    if said := divergence(result.summary["diverged_in_round"]):
        raise TrainingError(said)


@app.command()
def report(
    run: Annotated[list[Path], typer.Argument(help="Run directories.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
    tensorboard: Annotated[Path | None, typer.Option(help="Also write event files for TensorBoard here.")] = None,
) -> None:
    """Write one page about one or several runs; what cannot be read is left out, with the reason."""
    from thinwire.report import write_report

    typer.echo(write_report(run, out))
    if tensorboard:
        from thinwire.report.runs import read_runs
        from thinwire.report.tensorboard import write_events

        typer.echo(write_events(read_runs(run, lambda _: None), tensorboard))  # the page has told what is left out


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    trust: Trust = False,
) -> None:
    """Write the model of a run's last committed round: seed + mask for fedpm, else safetensors."""
    from thinwire.runtime import run as runs

    _imports(run)
    path, size, bpp = runs.export(run, out, trust)
    typer.echo(f"{path}: {size:,} bytes, {bpp:.3f} bits per parameter")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A frame or a model file.")],
    run: Annotated[Path | None, typer.Option(help="Run directory of the frame. Default: where it lies.")] = None,
    trust: Trust = False,
) -> None:
    """Show the parts of a frame or a model file, and what each weighs."""
    from thinwire.runtime import inspection

    table = inspection.inspect(file, run, trust)
    print_table(table.headers, table.rows)
    if table.hint:
        typer.echo(table.hint)


@app.command(name="deploy-check")
def deploy_check(
    experiment: Annotated[Path, typer.Argument(help="Experiment file (TOML), small enough for one machine.")],
    set_: Set = None,
    out: Annotated[Path, typer.Option(help="Directory for both runs and the logs.")] = Path("runs/deploy-check"),
    timeout: Annotated[float, typer.Option(help="Seconds that the deployed run may take.")] = 600.0,
) -> None:
    """Run an experiment on a Flower SuperLink with TLS and one SuperNode a client, all here; compare every byte."""
    from thinwire.runtime.experiment import assignment, merge, parse, read_file

    settings = read_file(experiment)
    for text in set_ or []:
        settings = merge(settings, assignment(text))
    parsed = parse(settings)
    if out.exists() and any(out.iterdir()):
        raise ConfigError("out", str(out), "a directory that is new or empty")
    from thinwire.flower.check import check
    from thinwire.flower.deployment import Deployment

    with Deployment(parsed.data.clients, out / "flower") as deployment:
        found = check(parsed, deployment, out, timeout)
    if found.differences:
        raise ThinwireError(f"not the same: {'; '.join(found.differences[:5])}")
    typer.echo(f"the same: {parsed.rounds} rounds, {found.frames} frames of the last one, the model; {out}")


@app.command()
def methods(
    name: Annotated[Text, typer.Argument(help="A preset or method to print as an experiment file.")] = None,
) -> None:
    """List the methods and presets, or print what one stands for."""
    from thinwire.runtime import catalogue

    if name:
        typer.echo(catalogue.method_toml(name))
    else:
        print_table(("method", "what"), catalogue.methods())


@app.command()
def codecs() -> None:
    """List the codecs and their fields."""
    from thinwire.runtime import catalogue

    print_table(("codec", "for", "fields", "what"), catalogue.codecs())


@app.command()
def models() -> None:
    """List the models."""
    from thinwire.runtime import catalogue

    print_table(("model", "parameters", "what"), catalogue.models())


@app.command()
def datasets() -> None:
    """List the data sets."""
    from thinwire.runtime import catalogue

    print_table(("data", "what"), catalogue.datasets())


def _word(value: object) -> str:
    """A part of a directory's name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in Path(str(value)).name)


LONGEST = 2000  # characters of an error that are printed


def main() -> None:
    """Entry point; every error of ours is one line. Functions of one's own are looked for in the working directory."""
    sys.path.append(os.getcwd())  # behind all that is installed: no numpy.py beside someone's model takes its place
    try:
        app(standalone_mode=True)
    except (ConfigError, DataError) as error:
        for line in (error, *getattr(error, "__notes__", ())):
            typer.echo(f"error: {shown(line, LONGEST)}", err=True)
        sys.exit(2)
    except ThinwireError as error:
        typer.echo(f"error: {shown(error, LONGEST)}", err=True)
        sys.exit(1)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"error: {shown(said, LONGEST)}", err=True)
        sys.exit(1)
