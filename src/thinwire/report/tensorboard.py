"""Runs as TensorBoard event files: a folder a run, the same bytes for the same ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from thinwire.errors import DataError, ThinwireError
from thinwire.report.runs import Run
from thinwire.report.tables import run_labels

BY_ROUND = ("accuracy", "loss", "up_bpp", "down_bpp", "personal_accuracy", "link_seconds", "nmse")
BY_KILOBYTES = "accuracy/by_kilobytes"  # step: total_bytes // 1000
FILE = "events.out.tfevents.0.thinwire"  # TensorBoard looks for "tfevents"; its own names have time and machine in them
VERSION = "brain.Event:2"
Scalar = tuple[str, int, float]  # tag, step, value


def write_events(runs: Sequence[Run], folder: Path) -> Path:
    """Write FOLDER/RUN/events… for each run, RUN its shortest telling name; a file of before is replaced. -> FOLDER

    Raises:
        ThinwireError: TensorBoard is not installed. DataError: a file cannot be written.
    """
    for run, label in zip(runs, run_labels(runs), strict=True):
        file = folder / label.strip("/") / FILE
        events = _events(run)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(events)
        except OSError as error:
            raise DataError(f"{file}: cannot be written ({error.strerror})") from None
    return folder


def scalars(run: Run) -> Iterator[Scalar]:
    """Every number that is shown, a round after the other; numbers that a round lacks are left out."""
    for row in run.rounds:
        for tag in BY_ROUND:
            if row[tag] is not None:
                yield tag, row["round"], row[tag]
        if row["accuracy"] is not None and row["total_bytes"] is not None:
            yield BY_KILOBYTES, row["total_bytes"] // 1000, row["accuracy"]


def _events(run: Run) -> bytes:
    """The file's bytes. Wall times are 0: they would be those of the writing, and differ every time."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise ThinwireError('event files need TensorBoard: pip install "thinwire[tensorboard]"') from None

    def scalar(tag: str, step: int, value: float) -> Any:
        return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))

    file = BytesIO()
    records = RecordWriter(file)
    for event in (Event(file_version=VERSION), *(scalar(*found) for found in scalars(run))):
        records.write(event.SerializeToString())
    return file.getvalue()
