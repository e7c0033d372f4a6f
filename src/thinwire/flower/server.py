"""The server's end on Flower: a ServerApp that plays thinwire's own rounds over the grid and leaves a run directory."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from thinwire.errors import ConfigError
from thinwire.flower.grid import GridPool
from thinwire.flower.settings import Source, experiment_of
from thinwire.report import divergence, write_report
from thinwire.runtime import run as runs
from thinwire.runtime.assembly import Assembly, assemble
from thinwire.runtime.experiment import Experiment, parse, read_file
from thinwire.runtime.folder import REPORT
from thinwire.runtime.ledger import Round
from thinwire.runtime.run import Result

log = logging.getLogger("flwr.thinwire")


def server_app(experiment: Source, out: str | Path | None = None, *, save_frames: bool = False) -> ServerApp:
    """A ServerApp for an experiment: a file, its settings as a dict, or an Experiment.

    It leaves the run in `out` (run-config `out` goes before it; runs/flower unless told), on the machine where the
    ServerApp runs. A directory with the same experiment in it is gone on with, after its last committed round.
    save_frames: keep the frames of the last round.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = Path(str(context.run_config.get("out") or out or Path("runs") / "flower")).absolute()
        result = play(experiment_of(experiment, context.run_config), grid, folder, save_frames=save_frames)
        log.info("accuracy %.2f %%, run directory %s", 100 * result.summary["accuracy"], result.out)

    return app


def play(experiment: Experiment, grid: Grid, out: Path, *, save_frames: bool = False) -> Result:
    """Run an experiment on the grid's nodes, or go on with it."""

    def connect(assembly: Assembly) -> GridPool:
        return GridPool(grid, assembly.run_id, assembly.clients, experiment.cohort)

    if experiment.faults.any:
        raise ConfigError("faults", experiment.faults.model_dump(exclude_defaults=True), "none: they are simulated")
    if (out / runs.CONFIG).is_file():
        _check_same(experiment, out)
        result = runs.resume(out, on_round=_log_round, connect=connect, trust=True)  # the app's own
    else:
        result = runs.start(experiment, out, save_frames=save_frames, on_round=_log_round, connect=connect)
    write_report([result.out], result.out / REPORT)
    if said := divergence(result.summary["diverged_in_round"]):
        log.error("%s", said)
    return result


def _check_same(experiment: Experiment, out: Path) -> None:
    """ConfigError unless the directory's experiment is this one."""
    wanted, there = assemble(experiment).resolved, parse(read_file(out / runs.CONFIG))
    if wanted != there.model_copy(update={"versions": wanted.versions}):
        raise ConfigError("out", str(out), "a new directory, or one with a run of this very experiment to go on with")


def _log_round(entry: Round, rounds: int) -> None:
    log.info(
        "round %d/%d  accuracy %s  up %.3f bpp  down %.3f bpp  %s bytes so far%s", entry.round, rounds,
        _percent(entry.accuracy), entry.up_bpp, entry.down_bpp, f"{entry.total_bytes:,}",
        "".join(f"; client {drop['client']} dropped: {drop['reason']}" for drop in entry.dropped),
    )  # fmt: skip


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"
