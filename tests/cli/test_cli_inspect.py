"""`run --save-frames` and `inspect` on what it kept: what is inside a payload, and what is refused."""

import shutil
from dataclasses import replace

import pytest
import toyworld
from typer.testing import CliRunner

from thinwire import cli
from thinwire import frame as frames
from thinwire.errors import DataError, DecodeError
from thinwire.frame import NO_BASE, Kind, Section
from thinwire.runtime.inspection import HINT, inspect
from thinwire.runtime.opening import NO_STATE, SEVERAL

UPLINKS = {
    "pinned": ["--method", "fedzip"],
    "faithful": ["--method", "fedzip", "--set", "uplink.variant=faithful"],
    "m22": ["--method", "m22", "--set", "uplink.magnitude=[[0, 2.0], [1, 4.0]]"],
    "stc": ["--method", "stc", "--set", 'uplink.positions={id="mask"}'],
    "fedpm": ["--method", "fedpm"],
}
DIGITS = ["--data", "digits", "--model", "mlp", "--clients", "3", "--rounds", "2", "--workers", "1"]


def thin(*words):
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run directory for each uplink, with its frames."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in UPLINKS.items():
        done = thin("run", *words, *DIGITS, "--save-frames", "--out", folder / name)
        assert done.exit_code == 0, done.output
    return folder


def leaves(rows):
    """Bytes of the rows that no indented row follows, the total left out."""
    depth = [len(row[0]) - len(row[0].lstrip()) for row in rows]
    sizes = [int(row[1].replace(",", "")) for row in rows]
    return [size for size, here, after in zip(sizes[:-1], depth, depth[1:], strict=False) if after <= here]


def names(rows):
    return [row[0].strip() for row in rows]


def up(run, client=0):
    return run / "frames" / f"round-2-client-{client}-up.tw"


# What is kept.


def test_the_frames_of_the_last_round_are_kept_whole(runs):
    kept = sorted(path.name for path in (runs / "fedpm" / "frames").iterdir())
    assert kept == [
        "round-2-client-0-up.tw", "round-2-client-1-up.tw", "round-2-client-2-up.tw", "round-2-down-from-0.tw",
        "server-0.safetensors", "server-1.safetensors",
    ]  # fmt: skip
    entry = toyworld.lines(runs / "fedpm")[-1]
    sizes = {name: (runs / "fedpm" / "frames" / name).stat().st_size for name in kept}
    assert sum(sizes[name] for name in kept[:3]) == entry["up_bytes"]
    assert 3 * (4 + sizes["round-2-down-from-0.tw"]) == entry["down_bytes"]  # 4: the envelope's


def test_nothing_is_kept_unasked_and_the_configuration_says_nothing_of_it(runs, tmp_path):
    assert thin("run", *UPLINKS["fedpm"], *DIGITS, "--out", tmp_path / "plain").exit_code == 0
    assert not (tmp_path / "plain" / "frames").exists()
    assert (tmp_path / "plain" / "config.toml").read_bytes() == (runs / "fedpm" / "config.toml").read_bytes()
    assert (tmp_path / "plain" / "model.tw").read_bytes() == (runs / "fedpm" / "model.tw").read_bytes()


# What inspect shows.


@pytest.mark.parametrize("name", UPLINKS)
def test_the_parts_add_up_to_the_file(runs, name):
    for path in (runs / name / "frames").glob("*.tw"):
        shown = inspect(path)
        assert shown.headers == ("part", "bytes", "%", "what")
        assert not shown.hint
        assert sum(leaves(shown.rows)) == path.stat().st_size == int(shown.rows[-1][1].replace(",", ""))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pinned", ["positions", "ones per class", "labels", "histograms", "centroids", "rest", "float16", "kmeans"]),
        ("faithful", ["fc1.weight", "fc3.weight", "labels", "positions", "centroids", "rest", "shortest", "gaps"]),
        ("m22", ["positions", "ones per class", "labels", "symbols", "centroids", "rest", "lloyd"]),
        ("stc", ["positions", "ones per class", "values", "magnitudes", "signs", "bitmap"]),
        ("fedpm", ["ones per class", "bits"]),
    ],
)
def test_an_update_opened(runs, name, words):
    done = thin("inspect", up(runs / name))
    assert done.exit_code == 0
    for word in ("values_shared", "header, table, checksum", "%", *words):
        assert word in done.output
    assert NO_STATE not in done.output


def test_a_step_opened(runs):
    rows = inspect(runs / "fedpm" / "frames" / "round-2-down-from-0.tw").rows
    assert names(rows)[1:6] == ["step", "before the payload", "header", "histograms", "symbols"]
    assert rows[2][1] == "1"  # the masks that are counted
    shown = names(inspect(runs / "stc" / "frames" / "round-2-down-from-0.tw").rows)
    assert shown == ["header, table, checksum", "step", "total"]  # float32: one plain piece


def test_a_frame_moved_elsewhere(runs, tmp_path):
    moved = shutil.copy(up(runs / "pinned"), tmp_path / "moved.tw")
    done = thin("inspect", moved)
    assert done.exit_code == 0
    assert "positions" not in done.output
    assert "--run RUN" in done.output
    assert inspect(moved).hint == HINT
    assert inspect(moved, runs / "pinned").rows == inspect(up(runs / "pinned")).rows


def test_what_is_coded_against_a_state_that_is_not_there_is_not_opened(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "fedpm", copy)
    for path in (copy / "frames").glob("server-*"):
        path.unlink()
    for path in (copy / "frames").glob("*.tw"):
        rows = inspect(path).rows
        assert rows[1][3] == NO_STATE
        assert len(rows) == 3


def test_an_update_without_shared_array_opens_without_a_state(runs, tmp_path):
    """Round 1: nothing was broadcast before it."""
    assert (
        thin("run", *UPLINKS["pinned"], *DIGITS, "--rounds", "1", "--save-frames", "--out", tmp_path / "a").exit_code
        == 0
    )
    kept = tmp_path / "a" / "frames"
    assert (kept / "round-1-down-from-keyframe.tw").exists()
    (kept / "server-0.safetensors").unlink()
    shown = names(inspect(kept / "round-1-client-0-up.tw").rows)
    assert {"values", "positions", "centroids"} < set(shown)
    assert names(inspect(kept / "round-1-down-from-keyframe.tw").rows)[1] == "seed"


def test_a_keyframe_opened(runs, tmp_path):
    world = toyworld.World()
    world.play()
    toyworld.run(tmp_path / "toy")
    (tmp_path / "key.tw").write_bytes(world.method.broadcast(world.progress.server, None))
    rows = inspect(tmp_path / "key.tw", tmp_path / "toy").rows
    assert names(rows)[1:] == ["seed", "total", "values", "header", "histograms", "symbols", "total"]


def test_model_files_stay_as_they_are(runs):
    for words in ([], ["--run", runs / "fedpm"]):
        done = thin("inspect", runs / "fedpm" / "model.tw", *words)
        assert done.exit_code == 0
        assert "%" not in done.output
        assert "--run" not in done.output


# What is refused.


def refused(path, run, kind, words):
    with pytest.raises(kind, match=words) as caught:
        inspect(path, run)
    assert "\n" not in str(caught.value)


def test_a_frame_of_another_run(runs):
    refused(up(runs / "fedpm"), runs / "pinned", DecodeError, "frame: of run [0-9a-f]{8}, this is run [0-9a-f]{8}")
    refused(up(runs / "stc"), runs / "m22", DecodeError, "frame: of run [0-9a-f]{8}, this is run [0-9a-f]{8}")
    refused(up(runs / "pinned"), runs / "faithful", DecodeError, "frame: of run [0-9a-f]{8}, this is run [0-9a-f]{8}")


def test_no_run_directory(runs, tmp_path):
    refused(up(runs / "stc"), tmp_path, DataError, "no config.toml, this is not a run directory")


def changed(path, out, **fields):
    """A frame with other fields and a good checksum."""
    out.write_bytes(frames.write(replace(frames.read(path.read_bytes()), **fields)))
    return out


@pytest.mark.parametrize("name", UPLINKS)
def test_a_hostile_payload(runs, name, tmp_path):
    ((sort, data),) = frames.read(up(runs / name).read_bytes()).sections
    for payload in (data[: len(data) // 2], data + bytes(9), b"\xff" * 40, b""):
        bad = changed(up(runs / name), tmp_path / "bad.tw", sections=((sort, payload),))
        refused(bad, runs / name, DecodeError, ".")


def test_other_hostile_frames(runs, tmp_path):
    good, run, bad = up(runs / "fedpm"), runs / "fedpm", tmp_path / "bad.tw"
    step = run / "frames" / "round-2-down-from-0.tw"
    refused(changed(good, bad, layout=bytes(8)), run, DecodeError, "layout 0{16}, expected")
    refused(
        changed(good, bad, samples=1, sections=((Section.STEP, b"1"),)),
        run,
        DecodeError,
        "sections values_shared, exactly 1 expected|alone",
    )
    refused(changed(step, bad, base=5), run, DecodeError, "do not lead from version 5 to 1")
    refused(changed(step, bad, kind=Kind.KEYFRAME, base=NO_BASE), run, DecodeError, "keyframe|sections")
    two = changed(good, bad, sections=((Section.VALUES, b""), (Section.VALUES, b"")))
    assert [row[3] for row in inspect(two, run).rows[1:3]] == [SEVERAL] * 2


def test_the_command_ends_with_one_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["thinwire", "inspect", str(up(runs / "stc")), "--run", str(runs / "m22")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: frame: of run ")
