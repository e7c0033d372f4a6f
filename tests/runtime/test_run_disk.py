"""Every single operation on the disk fails once, in each way that it can: the run goes on as if nothing had been."""

import sqlite3
from contextlib import closing

import pytest
from faultydisk import CRASH, FULL, POWER, TAKES_NO_ROOM, Crash, Disk
from test_run_determinism import FEEDBACK, same
from toyworld import experiment

from thinwire.errors import ThinwireError
from thinwire.runtime.run import resume, start
from thinwire.runtime.store import CLIENTS

SETTINGS = {
    **FEEDBACK, "rounds": 3, "cohort": {"size": 2}, "data": {"test_fraction": 0.25}, "evaluation": {"every": 1},
    "checkpoint": {"memory_mb": 0},
}  # fmt: skip
FEW = 11  # every so many operations in the fast test, another offset for each way to fail


def play(out, every=1):
    """Start, or go on with, the same run."""
    if (out / "config.toml").exists():
        return resume(out, workers=1)
    settings = {**SETTINGS, "checkpoint": {"memory_mb": 0, "every": every}}
    return start(experiment("fedavg", **settings), out, workers=1, save_frames=True)


def tree(out):
    """Every file's name, and what is in those that hold no times and no digest of them."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: contents(path) for name, path in files.items() if not name.endswith("-journal")}


def contents(path):
    if path.name.startswith(("rounds.jsonl", "summary.json", "manifest")):
        return None
    return kept(path) if path.name == CLIENTS else path.read_bytes()


def kept(path):
    """What the checkpoints say that clients keep. Their file may have more: lines and states of no version kept."""
    versions = sorted(int(manifest.stem.partition("-")[2]) for manifest in path.parent.glob("manifest-*.json"))
    data = "(SELECT data FROM state WHERE id = one.{})"
    columns = f"client, have, accepted, holds, pending_version, {data.format('state')}, {data.format('pending')}"
    latest = "(SELECT max(version) FROM line WHERE client = one.client AND version <= ?)"
    query = f"SELECT {columns} FROM line AS one WHERE version = {latest} ORDER BY client"
    with closing(sqlite3.connect(path)) as file:
        return {version: file.execute(query, (version,)).fetchall() for version in versions}


@pytest.fixture(scope="module", params=[1, 2])
def whole(request, tmp_path_factory):
    """-> rounds between checkpoints, the unbroken run, how many operations it takes."""
    folder = tmp_path_factory.mktemp("whole")
    with Disk(folder).between(pytest.MonkeyPatch()) as disk:
        play(folder / "run", request.param)
    return request.param, folder / "run", len(disk.log)


def broken_at(tmp_path, monkeypatch, whole, how, number):
    """Fail at an operation, look at what is left, go on, compare."""
    every, unbroken, _ = whole
    out = tmp_path / f"{how}-{number}" / "run"
    with Disk(out, how, number).between(monkeypatch) as disk:
        try:
            play(out, every)
        except Crash:
            assert how != FULL
        except (ThinwireError, OSError) as error:
            assert how == FULL
            look_at(out, error)
        else:
            assert how == FULL, f"operation {number} did not fail: {disk.log[-1]}"
            assert {kind for kind, _ in disk.log[number:]} <= set(TAKES_NO_ROOM)  # the last ones: the lock is removed
    play(out, every)
    same(out, unbroken)
    assert tree(out) == tree(unbroken), disk.log[number]


def look_at(out, error):
    """A full disk: one line that says how to go on, nothing half-written, what was committed is there."""
    assert "No space left on device" in str(error) or "no space left on device" in str(error)
    assert "\n" not in str(error)
    if not (out / "config.toml").exists():
        assert not [path for path in out.rglob("*") if path.is_file()]
        return
    if isinstance(error, ThinwireError):
        assert f"resume with: thinwire resume {out}" in str(error)
    assert not list(out.rglob("*.tmp"))
    for ledger in out.rglob("rounds.jsonl"):
        assert ledger.read_bytes()[-1:] in (b"", b"\n")


@pytest.mark.parametrize(("how", "first"), [(FULL, 0), (CRASH, 4), (POWER, 8)])
def test_a_disk_that_fails_now_and_then(tmp_path, monkeypatch, whole, how, first):
    for number in range(first, whole[2], 3 * FEW):
        broken_at(tmp_path, monkeypatch, whole, how, number)


@pytest.mark.slow
@pytest.mark.parametrize("how", [FULL, CRASH, POWER])
def test_a_disk_that_fails_at_every_operation(tmp_path, monkeypatch, whole, how):
    for number in range(whole[2]):
        broken_at(tmp_path, monkeypatch, whole, how, number)


def test_a_disk_that_fails_while_a_broken_run_is_resumed(tmp_path, monkeypatch, whole):
    """Dead in the middle, then dead again at operations of the resumption."""
    every, unbroken, count = whole
    for number in range(0, count // 2, FEW):
        out = tmp_path / str(number) / "run"
        for at in (count // 2, number):
            with Disk(out, POWER, at).between(monkeypatch), pytest.raises(Crash):
                play(out, every)
        play(out, every)
        same(out, unbroken)
        assert tree(out) == tree(unbroken)
