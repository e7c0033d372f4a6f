"""One run from experiment to run directory: assemble, play the rounds, commit each, leave summary, model and page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import fsum
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from thinwire import data as datasets
from thinwire import modelfile
from thinwire.errors import ConfigError, DataError
from thinwire.files import check_folder
from thinwire.frame import MAGIC
from thinwire.machine import start_method
from thinwire.purity import plain, restored
from thinwire.runtime import checkpoint, faults, origin
from thinwire.runtime import trust as trusted
from thinwire.runtime.assembly import Assembly, assemble
from thinwire.runtime.evaluation import Evaluation, evaluate_clients, personal, read_scores, write_scores
from thinwire.runtime.experiment import Experiment, parse, read_file, to_toml
from thinwire.runtime.folder import CHECKPOINT, CLIENTS, CONFIG, ROUNDS, SUMMARY, check_free, claim, resumable
from thinwire.runtime.hiring import NoWorkersError, refuse_in_import
from thinwire.runtime.interruption import Interruption, heeded
from thinwire.runtime.ledger import NOTHING, Ledger, Mark, Round, finite, strict_json
from thinwire.runtime.link import Link
from thinwire.runtime.lock import held
from thinwire.runtime.pool import Pool
from thinwire.runtime.progress import Progress
from thinwire.runtime.recipe import clients_of
from thinwire.runtime.recorder import FRAMES, Recorder
from thinwire.runtime.records import Records, Shelf
from thinwire.runtime.round import RoundWork
from thinwire.runtime.simulate import Simulation
from thinwire.runtime.together import Together
from thinwire.runtime.trial import try_out
from thinwire.runtime.workers import default_workers, open_pool, open_reader

OnRound = Callable[[Round, int], None]  # the round just committed, rounds in all
Connect = Callable[[Assembly], Pool]  # to clients on machines of their own


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, summary.json, the lines of the ledger, and the shipped model, read back."""

    out: Path
    summary: dict[str, Any]
    rounds: list[Round]
    model: nn.Module


@plain()
def start(
    experiment: Experiment,
    out: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    save_frames: bool = False,
    on_round: OnRound | None = None,
    connect: Connect | None = None,
) -> Result:
    """Run an experiment into a new directory.

    Raises:
        ConfigError: the directory is taken and `force` is not given.
        ThinwireError: another process works in it.
    """
    refuse_in_import()
    assembly = assemble(experiment)
    start_method()  # a wrong one shows before the run leaves a directory
    with _one_thread():
        try_out(assembly)
    check_free(out, force)
    with held(out):
        claim(out, force, save_frames)
        trusted.mark(out, experiment)
        modelfile.save_bytes(to_toml(assembly.resolved).encode(), out / CONFIG)
        modelfile.sync_folder(out)
        with resumable(out):
            progress, ledger = _nothing_yet(assembly, out), _ledger(out, NOTHING)
            pool = connect(assembly) if connect else _local(assembly, workers)
            return _play(assembly, out, progress, ledger, pool, on_round)


@plain()
def resume(
    out: Path,
    *,
    workers: int | None = None,
    on_round: OnRound | None = None,
    connect: Connect | None = None,
    trust: bool = False,
) -> Result:
    """Go on with a run after its last committed round, with the very bytes of the unbroken run.

    trust: import the functions that config.toml names, also if this user has not begun the run here.

    Raises:
        ConfigError: config.toml or the model is not what the run began with, or names code and is not trusted.
        DataError: the data are not, or neither checkpoint can be read.
        ThinwireError: another process works in the directory, or its disk fails.
    """
    refuse_in_import()
    if not (out / CONFIG).is_file():
        raise DataError(f"{out}: no {CONFIG}, this is not a run directory")
    check_folder(out)
    with resumable(out), held(out):
        assembly = _same_as_begun(out, trust)
        if checkpoint.saved(out / CHECKPOINT):
            initial, most_bytes = assembly.method.init(), _most_bytes(assembly.experiment)
            progress, ledger = checkpoint.load(out / CHECKPOINT, initial, most_bytes, partial(_ledger, out))
            if progress.played > (rounds := assembly.experiment.rounds):
                progress.records.shelf.close()
                allowed = f"at least {progress.played}, the rounds that the run has played"
                raise ConfigError(f"{out / CONFIG}: rounds", rounds, allowed)
            checkpoint.sweep(out / CHECKPOINT, progress.played)  # what a crash after the last commit left
        else:
            progress, ledger = _nothing_yet(assembly, out), _ledger(out, NOTHING)
        pool = connect(assembly) if connect else _local(assembly, workers)
        return _play(assembly, out, progress, ledger, pool, on_round)


def _same_as_begun(out: Path, trust: bool) -> Assembly:
    """The run's experiment made ready; ConfigError or DataError names what has changed since the run began."""
    experiment = parse(read_file(out / CONFIG))
    trusted.check(out, experiment, trust)
    began = origin.read(out) if checkpoint.saved(out / CHECKPOINT) else None
    if began is None:
        return assemble(experiment)
    origin.check_settings(began, out, experiment)
    dataset = datasets.load(experiment.data.source)
    origin.check_data(began, out, dataset)
    assembly = assemble(experiment, dataset)
    origin.check_parts(began, out, assembly)
    origin.check_model(began, assembly)
    return assembly


def _ledger(out: Path, mark: Mark) -> Ledger:
    return Ledger.reopen(out / ROUNDS, out / CHECKPOINT / ROUNDS, mark)


def _local(assembly: Assembly, workers: int | None) -> Pool:
    """All clients on this machine, in so many processes."""
    alone = assembly.together or assembly.device != "cpu"
    number = workers or (1 if alone else default_workers(assembly.device, assembly.cohort_size))
    timeout = assembly.experiment.cohort.worker_timeout
    if number > 1 and alone:
        raise ConfigError("workers", number, "1 on a GPU, and where clients train together")
    if timeout and alone:
        raise ConfigError("cohort.worker_timeout", timeout, "not given on a GPU, and where clients train together")
    if assembly.together:
        return Together(clients_of(assembly))
    try:
        return open_pool(assembly, number)
    except NoWorkersError as error:
        if workers or timeout:
            raise
        warnings.warn(f"one process plays all clients: {error}", stacklevel=2)
        return open_pool(assembly, 1)


def _most_bytes(experiment: Experiment) -> int:
    """Bytes of client state that may stay in memory."""
    return 1_000_000 * experiment.checkpoint.memory_mb


def _nothing_yet(assembly: Assembly, out: Path) -> Progress:
    """Where a run begins, and what it begins with is written down."""
    origin.write(out, assembly, parse(read_file(out / CONFIG)))
    shelf = Shelf(out / CHECKPOINT, _most_bytes(assembly.experiment))
    return Progress(assembly.method.init(), records=Records(shelf))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: the same sums in the same order, whatever the number of workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _play(
    assembly: Assembly, out: Path, progress: Progress, ledger: Ledger, pool: Pool, on_round: OnRound | None
) -> Result:
    """Rounds until there are enough, each committed before the next; then what the run leaves behind."""
    began, cohort = perf_counter(), assembly.experiment.cohort
    with _one_thread(), restored(assembly.device):
        with closing(pool), closing(progress.records.shelf), heeded() as interruption:
            reader, pool = open_reader(assembly.method, pool), faults.faulty(pool, assembly)
            recorder = Recorder(pool, out / FRAMES) if (out / FRAMES).is_dir() else None
            simulation = Simulation(
                assembly.method, recorder or pool, assembly.clients, assembly.experiment.seed, pool, reader=reader,
                oversample=cohort.oversample if pool.may_be_late else 1.0, min_replies=cohort.min_replies,
                without_quorum=cohort.without_quorum, tries=cohort.tries,
                claims=replace(assembly.claims, own=pool.may_be_late),
            )  # fmt: skip
            progress = _play_rounds(assembly, simulation, out, progress, ledger, on_round, recorder, interruption)
        return _finish(assembly, out, progress, ledger, perf_counter() - began)


def _play_rounds(
    assembly: Assembly,
    simulation: Simulation,
    out: Path,
    progress: Progress,
    ledger: Ledger,
    on_round: OnRound | None,
    recorder: Recorder | None,
    interruption: Interruption,
) -> Progress:
    method, experiment, stop = assembly.method, assembly.experiment, False
    while not stop and (done := progress.played) < experiment.rounds:
        before = progress.server
        progress, work = simulation.play(progress)
        scores = dict[str, float]()
        if experiment.scores(done + 1):
            with work.timed("evaluate"):
                scores = assembly.evaluate(method.model(progress.server))
        evaluation = Evaluation()
        if experiment.evaluates(done + 1):
            with work.timed("evaluate_clients"):
                evaluation = _evaluate_clients(assembly, simulation, out, progress)
        entry = _entry(assembly.link, work, evaluation, scores, ledger.total_bytes)
        ledger.append(entry)
        stop = interruption.asked
        commit = stop or (done + 1) % experiment.checkpoint.every == 0 or done + 1 == experiment.rounds
        if recorder:
            recorder.played(method.version(before), before, keep=commit)
        if commit:
            checkpoint.save(out / CHECKPOINT, progress, done + 1, ledger.mark)
        progress.records.tidy()
        if on_round:
            on_round(entry, experiment.rounds)
    return progress


def _entry(
    link: Link | None, work: RoundWork, evaluation: Evaluation, scores: dict[str, float], total_before: int
) -> Round:
    """The round's line in the ledger, with what the clients' evaluation cost and gave, timed where there is a link."""
    entry = evaluation.note(work.entry(scores.get("accuracy"), finite(scores.get("loss")), total_before))
    return replace(entry, link_seconds=link.seconds(work.crossings + evaluation.crossings)) if link else entry


def _evaluate_clients(assembly: Assembly, simulation: Simulation, out: Path, progress: Progress) -> Evaluation:
    """Every client that holds samples back scores the model; clients.csv is there before the round is committed."""
    claims = replace(assembly.tested, own=simulation.pool.may_be_late)
    evaluation = evaluate_clients(simulation, progress, list(assembly.test_samples), claims)
    write_scores(out / CLIENTS, evaluation.scores, assembly.train_samples)
    return evaluation


def _finish(assembly: Assembly, out: Path, progress: Progress, ledger: Ledger, seconds: float) -> Result:
    """Ship the model, read it back and measure it, write the summary."""
    shipped = assembly.method.ship(progress.server, assembly.description)
    path = modelfile.save_bytes(shipped, out / ("model.tw" if shipped.startswith(MAGIC) else "model.safetensors"))
    model = modelfile.load(path, assembly.fresh())
    found = _summary(assembly, ledger.rounds) | {
        **_personal(out, ledger.rounds[-1]),
        "initial_accuracy": assembly.evaluate(assembly.method.model(assembly.method.init()))["accuracy"],
        "model_accuracy": assembly.evaluate(model)["accuracy"],
        "model_bytes": len(shipped),
        "model_bpp": 8 * len(shipped) / assembly.method.parameters,
        "model_density": modelfile.densities(model),
        "wall_seconds": round(seconds, 3),
    }
    summary: dict[str, Any] = finite(found)
    modelfile.save_bytes((strict_json(summary, indent=2) + "\n").encode(), out / SUMMARY)
    return Result(out, summary, ledger.rounds, model)


def _summary(assembly: Assembly, rounds: list[Round]) -> dict[str, Any]:
    """summary.json but for the model file's own numbers."""
    experiment, method = assembly.experiment, assembly.method
    return {
        "method": experiment.method["name"],
        "uplink": method.uplink.id,
        "downlink": method.downlink.id,
        "error_feedback": assembly.setup.error_feedback,
        "data": assembly.dataset.name,
        "model": experiment.model.source,
        "parameters": method.parameters,
        "clients": len(assembly.clients),
        "rounds": len(rounds),
        "accuracy": rounds[-1].accuracy,
        "diverged_in_round": next((entry.round for entry in rounds if entry.diverged), None),
        "best_accuracy": max((entry.accuracy for entry in rounds if entry.accuracy is not None), default=None),
        "up_bytes": sum(entry.up_bytes for entry in rounds),
        "down_bytes": sum(entry.down_bytes for entry in rounds),
        "evaluate_bytes": sum(entry.evaluate_bytes for entry in rounds),
        "mean_up_bpp": fsum(entry.up_bpp for entry in rounds) / len(rounds),
        "mean_down_bpp": fsum(entry.down_bpp for entry in rounds) / len(rounds),
        "last_up_bpp": rounds[-1].up_bpp,
        "link_seconds": _link_seconds(rounds),
    }


def _link_seconds(rounds: list[Round]) -> float | None:
    """Of the whole run; None unless every round was timed."""
    found = [entry.link_seconds for entry in rounds if entry.link_seconds is not None]
    return fsum(found) if len(found) == len(rounds) else None


def _personal(out: Path, last: Round) -> dict[str, float | int | None]:
    """What clients reach on samples of their own, if the last round ended with such an evaluation."""
    return personal(read_scores(out / CLIENTS)) if last.personal_accuracy is not None else {}


@plain()
def export(run: Path, out: Path, trust: bool = False) -> tuple[Path, int, float]:
    """Write the model of the last committed round. -> path, bytes, bits per parameter. trust: see `resume`."""
    if not (run / CONFIG).is_file():
        raise DataError(f"{run}: no {CONFIG}, this is not a run directory")
    check_folder(run)
    experiment = parse(read_file(run / CONFIG))
    trusted.check(run, experiment, trust)
    assembly, began = assemble(experiment), origin.read(run)
    if began is not None:
        origin.check_model(began, assembly)
    server = checkpoint.load_server(run / CHECKPOINT, assembly.method.init())
    shipped = assembly.method.ship(server, assembly.description)
    return modelfile.save_bytes(shipped, out), len(shipped), 8 * len(shipped) / assembly.method.parameters
