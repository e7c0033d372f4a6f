"""Event files, read back with TensorBoard's own reader and compared with the ledger they were made from."""

import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from thinwire.cli import app
from thinwire.errors import DataError, ThinwireError
from thinwire.report import read_run
from thinwire.report.tensorboard import FILE, write_events


def read_back(folder):
    """tag -> [(step, value)]; every wall time is 0."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert {event.wall_time for tag in found for event in found[tag]} == {0.0}
    return {tag: [(event.step, event.value) for event in found[tag]] for tag in found}


def test_every_number_of_the_ledger_comes_back(tmp_path, make_run, make_rounds):
    rows = [row | {"link_seconds": 1.5 * row["round"]} for row in make_rounds(4)]
    rows[-1] |= {"personal_accuracy": 0.75}
    run = read_run(make_run("a", rows=rows))
    assert write_events([run], tmp_path / "board") == tmp_path / "board"
    found = read_back(tmp_path / "board" / "a")
    for tag in ("accuracy", "loss", "up_bpp", "down_bpp", "link_seconds"):
        assert found.pop(tag) == [(row["round"], pytest.approx(row[tag], rel=1e-6)) for row in rows]
    assert found.pop("personal_accuracy") == [(4, 0.75)]
    by_bytes = [(row["total_bytes"] // 1000, pytest.approx(row["accuracy"], rel=1e-6)) for row in rows]
    assert found.pop("accuracy/by_kilobytes") == by_bytes
    assert not found


def test_a_loss_that_is_not_finite_and_an_unfinished_run(tmp_path, make_run, make_rounds):
    rows = make_rounds(3)
    rows[1] |= {"loss": float("nan")}
    write_events([read_run(make_run("a", rows=rows, finished=False))], tmp_path / "board")
    found = read_back(tmp_path / "board" / "a")
    assert [step for step, _ in found["loss"]] == [1, 3]
    assert [step for step, _ in found["accuracy"]] == [1, 2, 3]


def test_the_same_runs_give_the_same_bytes_and_a_folder_each(tmp_path, make_run, make_rounds):
    runs = [read_run(make_run(name, rows=make_rounds(n))) for name, n in (("x/a", 2), ("y/a", 3))]
    for _ in range(2):  # the second time over the first
        write_events(runs, tmp_path / "one")
    write_events(runs, tmp_path / "other")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [f"x/a/{FILE}", f"y/a/{FILE}"]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes()
    assert len(read_back(tmp_path / "one" / "y" / "a")["accuracy"]) == 3


def test_a_place_that_cannot_be_written(tmp_path, make_run):
    run = read_run(make_run("a"))
    (tmp_path / "board").write_text("a file")
    with pytest.raises(DataError, match=r"board/a/events\.out\.tfevents\.0\.thinwire: cannot be written"):
        write_events([run], tmp_path / "board")


def test_without_tensorboard_one_line_says_how_to_get_it(tmp_path, make_run, monkeypatch):
    run = read_run(make_run("a"))
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(ThinwireError, match=r'^event files need TensorBoard: pip install "thinwire\[tensorboard\]"$'):
        write_events([run], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_neither_torch_nor_tensorflow_is_imported(tmp_path, make_run):
    run = make_run("a")
    code = (
        "import sys; from pathlib import Path; from thinwire.report import read_run\n"
        "from thinwire.report.tensorboard import write_events\n"
        f"write_events([read_run({str(run)!r})], Path({str(tmp_path / 'board')!r}))\n"
        "print(*{'torch', 'tensorflow', 'flwr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert (tmp_path / "board" / "a" / FILE).exists()


def test_on_the_command_line(tmp_path, make_run):
    runs = [str(make_run(name)) for name in "ab"]
    page, board = tmp_path / "page.html", tmp_path / "board"
    done = CliRunner().invoke(
        app, ["report", *runs, str(tmp_path / "none"), "-o", str(page), "--tensorboard", str(board)]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(page), str(board)]
    assert done.stderr.count("left out") == 1
    assert page.exists()
    assert sorted(path.name for path in board.iterdir()) == ["a", "b"]
