"""Checkpoint, state and ledger on disk: whole or not there, and a broken one is refused in one line."""

import errno
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_run_determinism import Stop, same, stop_after
from toyworld import World, edit_manifests, run

from thinwire.errors import DataError, DecodeError
from thinwire.runtime import checkpoint
from thinwire.runtime.ledger import NOTHING, Ledger, Round, Traffic
from thinwire.runtime.run import export, resume
from thinwire.runtime.state import arrays_from_bytes, arrays_to_bytes, record_like, record_to_bytes
from thinwire.runtime.store import CLIENTS, Store
from thinwire.versions import History

JOURNAL = f"{CLIENTS}-journal"
FEEDBACK = {"uplink": {"id": "bfloat16", "error_feedback": True}, "downlink": {"id": "float16"}}


def feedback_world(rounds=2):
    world = World("fedavg", cohort={"size": 2}, **FEEDBACK)
    for _ in range(rounds):
        world.play()
    return world


def equal(a, b):
    """Two progresses, every array and every byte."""
    assert record_to_bytes(a.server) == record_to_bytes(b.server)
    assert (a.have, a.accepted, a.records) == (b.have, b.accepted, b.records)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_round_trip(tmp_path, name):
    world = World(name, cohort={"size": 2}, **(FEEDBACK if name == "fedavg" else {}))
    for version in range(1, 5):
        world.play()
        checkpoint.save(tmp_path, world.progress, version, 100 * version)
        loaded, position = checkpoint.load(tmp_path, world.method.init())
        equal(loaded, world.progress)
        assert position == 100 * version


def test_nothing_stale_is_left(tmp_path):
    world = feedback_world()
    checkpoint.save(tmp_path, world.progress, 2, 10)
    for name in ("server-1.safetensors", "manifest-3.json.tmp"):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"not ours")
    for version in (3, 4):
        world.play()
        checkpoint.save(tmp_path, world.progress, version, 20)
    manifests = [json.loads((tmp_path / f"manifest-{version}.json").read_text()) for version in (3, 4)]
    servers = {manifest["server"] for manifest in manifests}
    assert len(servers) == 2
    assert set(names(tmp_path)) - {JOURNAL} == {"manifest-3.json", "manifest-4.json", "notes.txt", CLIENTS, *servers}


def test_only_what_changed_is_written(tmp_path, monkeypatch):
    world = feedback_world()
    checkpoint.save(tmp_path, world.progress, 2, 10)
    before = world.progress
    world.play()
    changed = {c for c, record in world.progress.records.items() if before.records.get(c) is not record}
    lines, states, commit, put = [], [], Store.commit, Store.put
    monkeypatch.setattr(Store, "commit", lambda store, v, known: lines.extend(known) or commit(store, v, known))
    monkeypatch.setattr(Store, "put", lambda store, client, data: states.append(client) or put(store, client, data))
    checkpoint.save(tmp_path, world.progress, 3, 20)
    assert {known.client for known in lines} == set(states) == changed
    assert len(lines) == len(changed) == 2


def test_the_manifest_does_not_grow_with_the_clients(tmp_path):
    world = World("fedavg", **FEEDBACK)
    world.play()
    checkpoint.save(tmp_path, world.progress, 1, 10)
    manifest = json.loads((tmp_path / "manifest-1.json").read_text())
    (server,) = [name for name in names(tmp_path) if name.startswith("server-1-")]
    del manifest["digest"]
    assert manifest == {"version": 1, "tries": 1, "ledger": 10, "server": server, "clients": 4}


def test_clients_without_memory_leave_a_line_and_no_state(tmp_path):
    run(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    there = [name[:8] for name in names(folder) if name != JOURNAL]
    assert there == [CLIENTS[:8], "manifest", "manifest", "origin.j", "rounds.j", "server-2", "server-3"]
    with closing(sqlite3.connect(folder / CLIENTS)) as file:
        assert file.execute("SELECT count(*) FROM state").fetchone() == (0,)
        assert file.execute("SELECT count(DISTINCT client) FROM line").fetchone() == (4,)


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash_at", ["server", "put", "commit", "manifest", "keep", "nowhere"])
def test_a_crash_on_the_way_leaves_a_whole_checkpoint(tmp_path, monkeypatch, crash_at):
    """The old one until the manifest is renamed, the new one from then on; what comes after it is no matter."""
    world = feedback_world()
    checkpoint.save(tmp_path, world.progress, 2, 10)
    before = world.progress
    world.play()
    save_bytes = checkpoint.save_bytes

    def crashing(data, path):
        if path.name.startswith(crash_at):
            path.with_name(path.name + ".tmp").write_bytes(data[: len(data) // 2])
            raise Crash
        return save_bytes(data, path)

    def crash(*args, **options):
        raise Crash

    monkeypatch.setattr(checkpoint, "save_bytes", crashing)
    if hasattr(Store, crash_at):
        monkeypatch.setattr(Store, crash_at, crash)
    try:
        checkpoint.save(tmp_path, world.progress, 3, 20)
    except Crash:
        assert crash_at != "nowhere"
    monkeypatch.undo()
    world.progress.records.shelf.close()  # as the end of the process does
    loaded, position = checkpoint.load(tmp_path, world.method.init())
    after = crash_at in ("keep", "nowhere")
    equal(loaded, world.progress if after else before)
    assert position == (20 if after else 10)
    # and the next one sweeps up
    loaded.records[0] = loaded.records[0]
    checkpoint.save(tmp_path, loaded, 4, 30)
    there = [name for name in names(tmp_path) if name not in (CLIENTS, JOURNAL)]
    assert [name[:10] for name in there[:2]] == [f"manifest-{3 if after else 2}"[:10], "manifest-4"]
    assert len(there) == 4
    loaded.records.shelf.close()
    equal(checkpoint.load(tmp_path, world.method.init())[0], loaded)


def test_exporting_leaves_the_clients_file_alone(tmp_path):
    """A run may be writing to it."""
    run(tmp_path / "run", "fedavg", cohort={"size": 2}, **FEEDBACK)
    path = tmp_path / "run" / "checkpoint" / CLIENTS
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        export(tmp_path / "run", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path):
    world = feedback_world()
    checkpoint.save(tmp_path, world.progress, 2, 10)
    before = world.progress
    world.play()
    pages = world.progress.records.shelf.store._opened().execute("PRAGMA page_count").fetchone()[0]
    world.progress.records.shelf.store._opened().execute(f"PRAGMA max_page_count = {pages}")
    world.progress.records[0] = replace(world.progress.records[0], pending=bytes(100_000), pending_version=2)
    with pytest.raises(OSError, match="database or disk is full") as caught:
        checkpoint.save(tmp_path, world.progress, 3, 20)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / CLIENTS))
    world.progress.records.shelf.close()
    equal(checkpoint.load(tmp_path, world.method.init())[0], before)


# broken checkpoints --------------------------------------------------------------------------------------------------


def edit(**changes):
    def change(manifest):
        for key, value in changes.items():
            if value is None:
                del manifest[key]
            else:
                manifest[key] = value

    return lambda folder: edit_manifests(folder, change)


def write(pattern, change):
    def harm(folder):
        for path in folder.glob(pattern):
            path.write_bytes(change(path.read_bytes()))

    return harm


def remove(pattern):
    def harm(folder):
        for path in folder.glob(pattern):
            path.unlink()

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        write("manifest*", lambda data: data[:-5]),
        write("manifest*", lambda data: b"[]"),
        write("manifest*", lambda data: b"\xff\xfe"),
        edit(server=None),
        edit(server="elsewhere.safetensors"),
        edit(server=7),
        edit(clients=None),
        edit(clients=[1]),
        edit(clients={"one": {}}),
        edit(clients={"1": {}}),
        edit(clients=77),
        edit(version=None),
        edit(version="x"),
        edit(tries=None),
        edit(ledger=None),
        edit(ledger={}),
        edit(ledger="1000"),
        write("manifest*", lambda data: data.replace(b'"version": ', b'"version": 1')),
        remove("server*"),
        remove("client*"),
        write("server*", lambda data: b""),
        write("server*", lambda data: data[:-1]),
        write("server*", lambda data: b"\xff" * len(data)),
        write("client*", lambda data: data[: len(data) // 2]),
        write("client*", lambda data: b"x"),
    ],
)
def test_a_broken_checkpoint_is_refused(tmp_path, harm):
    run(tmp_path / "run", "fedavg", cohort={"size": 2}, **FEEDBACK)
    harm(tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match=r"checkpoint|rounds\.jsonl: cannot be read") as caught:
        resume(tmp_path / "run")
    assert "\n" not in str(caught.value)


BREAKS = {
    "cut manifest": write("manifest-4*", lambda data: data[:-5]),
    "empty manifest": write("manifest-4*", lambda data: b""),
    "changed manifest": write("manifest-4*", lambda data: data.replace(b'{"bytes": ', b'{"bytes": 1', 1)),
    "another version": write("manifest-4*", lambda data: data.replace(b'"version": 4', b'"version": 5')),
    "no server": remove("server-4*"),
    "cut server": write("server-4*", lambda data: data[:-1]),
    "flipped server": write("server-4*", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
}


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("harm", BREAKS)
def test_where_the_newest_is_broken_the_one_before_it_is_taken(tmp_path, capsys, harm, every):
    settings = {"cohort": {"size": 2}, "rounds": 5, "checkpoint": {"every": every}, **FEEDBACK}
    run(tmp_path / "whole", "fedavg", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", on_round=stop_after(4), **settings)
    BREAKS[harm](tmp_path / "parts" / "checkpoint")
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == ([4, 5] if every == 1 else [3, 4, 5])
    same(tmp_path / "whole", tmp_path / "parts")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"; going on from the one before it, manifest-{4 - every}.json")
    assert "checkpoint" in said


@pytest.mark.parametrize("change", ["substr(data, 2)", "zeroblob(length(data))"])
def test_a_client_state_of_the_last_round_that_is_broken_costs_the_round(tmp_path, change):
    settings = {"cohort": {"size": 2}, "rounds": 5, **FEEDBACK}
    run(tmp_path / "whole", "fedavg", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", on_round=stop_after(3), **settings)
    with closing(sqlite3.connect(tmp_path / "parts" / "checkpoint" / CLIENTS)) as file:
        fresh = "SELECT pending FROM line WHERE version = 3 LIMIT 1"
        file.execute(f"UPDATE state SET data = CAST({change} AS BLOB) WHERE id = ({fresh})")
        file.commit()
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == [3, 4, 5]
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_of_which_both_checkpoints_are_broken_says_what_is_wrong_with_the_newest(tmp_path):
    run(tmp_path / "run", rounds=3)
    write("manifest*", lambda data: data[:-1])(tmp_path / "run" / "checkpoint")
    with pytest.raises(DataError, match=r"manifest-3\.json: the checkpoint is broken"):
        resume(tmp_path / "run")


def test_a_broken_checkpoint_is_no_longer_there_after_the_next_one(tmp_path):
    """Also where the next one has a lower number, as after Ctrl-C in a run that commits now and then."""
    world = feedback_world()
    for version in (1, 2, 6):
        checkpoint.save(tmp_path, world.progress, version, 10)
    (tmp_path / "manifest-6.json").write_text("{")
    progress, _ = checkpoint.load(tmp_path, world.method.init())
    world.progress = progress
    world.play()
    checkpoint.save(tmp_path, world.progress, 4, 20)
    assert [name for name in names(tmp_path) if name.startswith("manifest")] == ["manifest-2.json", "manifest-4.json"]
    assert len([name for name in names(tmp_path) if name.startswith("server")]) == 2
    (tmp_path / "manifest-4.json").unlink()
    equal(checkpoint.load(tmp_path, world.method.init())[0], progress)


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    world = World("fedavg")
    world.play()
    checkpoint.save(tmp_path, world.progress, 1, 0)
    with pytest.raises(DataError, match="not of this method"):
        checkpoint.load(tmp_path, World("fedpm").method.init())


def test_an_empty_folder_is_nothing_to_resume(tmp_path):
    with pytest.raises(DataError, match="no manifest, there is nothing to resume"):
        checkpoint.load(tmp_path, None)


# state ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    numbers: np.ndarray
    label: str | None = None


@dataclass(frozen=True)
class Outer:
    history: History
    inner: Inner
    payloads: tuple[bytes, ...]
    count: int
    rate: float


def test_records_go_to_bytes_and_back():
    state = Outer(
        History(3, (b"", b"\x00\xff", b"step")),
        Inner(np.arange(5, dtype=np.uint32), "name"),
        (),
        2**55,
        0.1,
    )
    example = Outer(History(), Inner(np.zeros(1)), (), 0, 0.0)
    back = record_like(example, record_to_bytes(state))
    assert back.history == state.history
    np.testing.assert_array_equal(back.inner.numbers, state.inner.numbers)
    assert back.inner.numbers.dtype == np.uint32
    assert (back.inner.label, back.payloads, back.count, back.rate) == ("name", (), 2**55, 0.1)
    assert record_to_bytes(back) == record_to_bytes(state)


def test_a_record_of_other_fields_is_refused():
    data = record_to_bytes(Inner(np.zeros(2)))
    with pytest.raises(DecodeError, match="not of this method"):
        record_like(History(), data)
    with pytest.raises(DecodeError, match="not of this method"):
        record_like(Inner(np.zeros(2)), b"")
    with pytest.raises(DecodeError, match="not safetensors"):
        record_like(Inner(np.zeros(2)), data[:-3])


def test_arrays_go_to_bytes_and_back():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.zeros((0, 4), np.uint8)}
    back = arrays_from_bytes(arrays_to_bytes(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
    assert arrays_to_bytes({}) == b""
    assert arrays_from_bytes(b"") == {}
    with pytest.raises(DecodeError, match="not safetensors"):
        arrays_from_bytes(b"nonsense")


# ledger --------------------------------------------------------------------------------------------------------------


def entry(number, total):
    return Round(number, 0.5, 1.0, 1.1, 10, 20, 0, 0.5, None, 1.0, total, 4, [], {"evaluate": 0.1})


def three_rounds(tmp_path):
    """A ledger, its two files, and its mark after each round."""
    files, marks = (tmp_path / "rounds.jsonl", tmp_path / "checkpoint" / "rounds.jsonl"), []
    ledger = Ledger.reopen(*files, NOTHING)
    assert ledger.total_bytes == 0
    for number in (1, 2, 3):
        ledger.append(entry(number, 30 * number))
        marks.append(ledger.mark)
    return ledger, files, marks


def test_a_ledger_goes_on_where_it_was_committed(tmp_path):
    ledger, files, marks = three_rounds(tmp_path)
    assert [path.stat().st_size for path in files] == [marks[-1]["bytes"]] * 2
    again = Ledger.reopen(*files, marks[1])
    assert again.rounds == ledger.rounds[:2]
    assert again.total_bytes == 60
    assert again.mark == marks[1]
    assert [path.stat().st_size for path in files] == [marks[1]["bytes"]] * 2
    again.append(entry(3, 90))
    for path in files:
        assert [json.loads(line)["round"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert again.mark == marks[2]


@pytest.mark.parametrize("which", [0, 1])
def test_a_ledger_cut_anywhere_is_restored(tmp_path, which):
    ledger, files, marks = three_rounds(tmp_path)
    whole = files[0].read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        files[which].write_bytes(whole[:length])
        again = Ledger.reopen(*files, marks[2])
        assert again.rounds == ledger.rounds
        assert [path.read_bytes() for path in files] == [whole, whole]


@pytest.mark.parametrize("which", [0, 1])
def test_a_ledger_that_was_changed_or_removed_is_restored(tmp_path, which):
    ledger, files, marks = three_rounds(tmp_path)
    whole = files[0].read_bytes()
    files[which].write_bytes(whole.replace(b'"clients": 4', b'"clients": 5', 1))
    assert Ledger.reopen(*files, marks[2]).rounds == ledger.rounds
    files[which].unlink()
    assert Ledger.reopen(*files, marks[2]).rounds == ledger.rounds
    assert [path.read_bytes() for path in files] == [whole, whole]


def test_a_ledger_of_which_both_files_are_cut_is_refused_and_left_alone(tmp_path):
    _, files, marks = three_rounds(tmp_path)
    for path in files:
        path.write_bytes(path.read_bytes()[:-10])
    left = files[0].read_bytes()
    with pytest.raises(DataError, match=rf"{len(left)} bytes, the checkpoint was made at {len(left) + 10}"):
        Ledger.reopen(*files, marks[2])
    assert [path.read_bytes() for path in files] == [left, left]


def test_traffic():
    traffic = Traffic(parameters=100, up=[100, 300], down=[50], marginal_bits=[80.0, 90.0])
    assert traffic.bpp(traffic.up) == 16
    assert traffic.bpp([]) == 0
    assert traffic.marginal_bpp == 0.85
    assert Traffic(100).marginal_bpp is None
