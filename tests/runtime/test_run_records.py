"""Client state beyond a bound of memory: on disk, read when its client is asked, and nothing else changes."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from test_run_determinism import FEEDBACK, Stop, killed, same, stop_after, summary
from toyworld import World, lines, run

from thinwire.errors import DataError
from thinwire.runtime import checkpoint
from thinwire.runtime.client import NEVER, Record
from thinwire.runtime.progress import Progress
from thinwire.runtime.records import Records, Shelf, from_known
from thinwire.runtime.run import resume
from thinwire.runtime.state import arrays_to_bytes
from thinwire.runtime.store import CLIENTS, Store, known

PARTIAL = {**FEEDBACK, "cohort": {"fraction": 0.5}, "data": {"clients": 6}}


def state(value, size=256):
    return arrays_to_bytes({"x": np.full(size, value, np.float32)})


def states(held_or_folder):
    """How many states a folder's file has; of records, what their open transaction sees."""
    if isinstance(held_or_folder, Records):
        store = held_or_folder.shelf.store
        return store._opened().execute("SELECT count(*) FROM state").fetchone()[0] if store.connection else 0
    if not (held_or_folder / CLIENTS).exists():
        return 0
    with closing(sqlite3.connect(held_or_folder / CLIENTS)) as file:
        return file.execute("SELECT count(*) FROM state").fetchone()[0]


def filled(shelf, count, size=256):
    held = Records(shelf)
    for client in range(count):
        held[client] = Record(client, state(client, size), state(-client - 1, size), client)
    return held


# the shelf -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 5000, 20_000, float("inf")])
def test_what_is_stored_comes_back_wherever_it_is(tmp_path, most):
    held, plain = filled(Shelf(tmp_path, most), 12), filled(Shelf(), 12)
    assert held == dict(plain)
    assert held.shelf.held_bytes <= most
    assert (states(held) == 0) == (most == float("inf"))
    if most == 0:
        assert states(held) == 24
        assert held.shelf.resident == {}


def test_the_least_recently_stored_go_first(tmp_path):
    one = 2 * len(state(0))
    held = filled(Shelf(tmp_path, 3 * one), 3)
    held[0] = replace(held[0], have=9)  # client 0 is now the newest
    held[3] = Record(3, state(3), state(4), 3)
    assert {entry.client for entry in held.entries.values() if entry.record is None} == {1}
    assert held.of(1) == Record(1, state(1), state(-2), 1)
    assert held.of(77) == Record()


def test_records_without_memory_take_neither_room_nor_disk(tmp_path):
    held = Records(Shelf(tmp_path / "checkpoint", 0))
    for client in range(50):
        held[client] = Record(have=client)
    assert held.shelf.resident == {}
    assert not (tmp_path / "checkpoint").exists()


def test_a_pending_state_that_becomes_the_state_is_not_written_again(tmp_path):
    held = Records(Shelf(tmp_path, 0))
    held[0] = Record(0, b"", state(1), 0)
    held[0] = Record(1, state(1), state(2), 1)  # settled, trained again
    held[0] = Record(2, state(2), state(3), 2)
    assert states(held) == 3
    assert held.entries[0].line.state == 2  # the id that the pending state had
    held.tidy()
    assert states(held) == 2


def test_a_copy_changes_on_its_own(tmp_path):
    held = filled(Shelf(tmp_path, 4000), 4)
    other = held.copy()
    other[1] = Record(9, state(9))
    assert held[1] == Record(1, state(1), state(-2), 1)
    assert sorted(held) == [0, 1, 2, 3]
    assert (other[1], len(other)) == (Record(9, state(9)), 4)


def test_tidying_keeps_what_is_living_and_what_is_committed(tmp_path):
    held = filled(Shelf(tmp_path, 0), 3)
    checkpoint.save(tmp_path, Progress(Record(), records=held), 1, 0)
    assert states(held) == 6
    later = held.copy()
    later[0] = Record(5, state(50), state(51), 5)
    later.tidy()
    after = later.copy()
    after[0] = Record(6, state(51), state(52), 6)
    after.tidy()
    assert states(after) == 8  # state(50) is gone, the committed ones are not
    assert held[0] == Record(0, state(0), state(-1), 0)
    assert after[0] == Record(6, state(51), state(52), 6)
    for version, count in ((2, 8), (3, 6)):  # the last two checkpoints are kept
        checkpoint.save(tmp_path, Progress(Record(), records=after), version, 0)
        assert states(tmp_path) == count


@pytest.mark.parametrize("most", [0, 1e9])
def test_two_versions_can_be_kept(tmp_path, most):
    """What `keep` is told is still needed is there, the older states of clients that changed since among it."""
    held, seen = Records(Shelf(tmp_path, most)), {}
    for version in range(1, 9):
        held = held.copy()
        for client in {version % 3, version % 4}:
            held[client] = Record(version, held.of(client).pending, state(10 * version + client), version)
        held.write(tmp_path, version, dict.fromkeys(held, version), {})
        seen[version] = dict(held)
        held.keep(oldest=max(1, version - 1))
        held.tidy()
        needed = set()
        for kept in {max(1, version - 1), version}:
            found = from_known(Shelf(tmp_path, 0, 99), known(tmp_path, kept))
            assert dict(found) == seen[kept]
            found.shelf.close()
            needed |= {(c, data) for c, record in found.items() for data in (record.state, record.pending) if data}
            found.shelf.close()
        assert states(tmp_path) == len(needed)


def test_a_failed_round_takes_nothing_away(tmp_path):
    """A copy that is thrown away: what it stored of a client does not hide what was stored before."""
    held = Records(Shelf(tmp_path, 0))
    held[0] = Record(1, b"", state(1), 1)
    lost = held.copy()
    lost[0] = Record(2, state(1), state(2), 2)
    checkpoint.save(tmp_path, Progress(Record(), records=held), 1, 0)
    held.tidy()
    found, _ = checkpoint.load(tmp_path, Record())
    assert dict(found.records) == {0: Record(1, b"", state(1), 1)} == dict(held)
    assert states(held) == 1


def test_what_is_superseded_no_longer_counts(tmp_path):
    one = len(state(0))
    held = Records(Shelf(tmp_path, 10 * one))
    for turn in range(100):
        held = held.copy()
        held[0] = Record(turn, state(turn), b"", NEVER)
        held.tidy()
        assert held.shelf.held_bytes == one
        assert len(held.shelf.uncommitted) == 1
    assert states(held) == 0


HARMS = pytest.mark.parametrize(
    "harm",
    [
        "UPDATE state SET data = CAST(substr(data, 1, length(data) - 1) AS BLOB) WHERE id = 4",
        "UPDATE state SET data = zeroblob(length(data)) WHERE id = 4",
        "UPDATE state SET data = 7 WHERE id = 4",
        "UPDATE state SET digest = zeroblob(16) WHERE id = 4",
        "UPDATE state SET client = 3 WHERE id = 4",
        "DELETE FROM state WHERE id = 4",
    ],
)


@HARMS
def test_a_broken_state_of_the_last_round_shows_when_it_is_loaded(tmp_path, harm):
    """So that the checkpoint before it can be taken; older states are looked at when their client is asked."""
    held = filled(Shelf(tmp_path, 0), 2)
    held.write(tmp_path, 1, {}, {})
    held.shelf.close()
    with closing(sqlite3.connect(tmp_path / CLIENTS)) as file:
        file.execute(harm)
        file.commit()
    with pytest.raises(DataError, match=r"clients.sqlite: the checkpoint is broken \(client 1's state is not what"):
        known(tmp_path, 1)
    assert [one.client for one in known(tmp_path, 2)] == [0, 1]


@HARMS
def test_a_state_that_is_not_what_was_written_is_named_when_it_is_read(tmp_path, harm):
    held = filled(Shelf(tmp_path, 0), 2)
    assert held.entries[1].line.pending == 4
    held.shelf.store._opened().execute(harm)
    assert held[0]
    with pytest.raises(DataError, match=r"clients.sqlite: the checkpoint is broken, client 1's state") as caught:
        held[1]
    assert "\n" not in str(caught.value)


# whole runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_where_states_lie_changes_nothing(tmp_path, workers, every):
    settings = {**PARTIAL, "rounds": 5}
    run(tmp_path / "memory", "fedavg", **settings)
    run(tmp_path / "files", "fedavg", workers=workers, **settings, checkpoint={"memory_mb": 0, "every": every})
    same(tmp_path / "memory", tmp_path / "files")
    assert states(tmp_path / "files" / "checkpoint") <= 3 * 6  # state and pending now, and the state before


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_stopped_run_goes_on_from_its_files(tmp_path, stopped):
    settings = {**PARTIAL, "rounds": 5, "checkpoint": {"memory_mb": 0, "every": 3}}
    run(tmp_path / "whole", "fedavg", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", on_round=stop_after(stopped), **settings)
    resume(tmp_path / "parts", workers=1)
    same(tmp_path / "whole", tmp_path / "parts")
    assert states(tmp_path / "parts" / "checkpoint") <= 3 * 6  # state and pending now, and the state before


@pytest.mark.parametrize(("every", "workers"), [(1, 1), (3, 2)])
def test_a_killed_run_goes_on_from_its_files(tmp_path, every, workers):
    settings = {**PARTIAL, "rounds": 8, "checkpoint": {"memory_mb": 0, "every": every}}
    run(tmp_path / "whole", "fedavg", **settings)
    for after in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):
        if killed(tmp_path / "parts", "fedavg", workers, settings, after):
            break
    resume(tmp_path / "parts", workers=workers)
    same(tmp_path / "whole", tmp_path / "parts")
    assert summary(tmp_path / "whole") == summary(tmp_path / "parts")


def test_resuming_loads_no_state_before_its_client_is_asked(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(2), **{**PARTIAL, "rounds": 3})
    loaded, get = [], Store.get
    monkeypatch.setattr(Store, "get", lambda store, client, id: loaded.append(client) or get(store, client, id))
    world = World("fedavg", **PARTIAL)
    progress, _ = checkpoint.load(tmp_path / "run" / "checkpoint", world.method.init())
    assert len(progress.records) >= 3
    assert loaded == []
    resume(tmp_path / "run", workers=1)
    assert 0 < len(set(loaded)) <= 3  # the cohort's


def test_a_flipped_state_ends_the_run_that_asks_for_it(tmp_path):
    settings = {**FEEDBACK, "rounds": 3}
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(2), **settings)
    path = tmp_path / "run" / "checkpoint" / CLIENTS
    with closing(sqlite3.connect(path)) as file:
        older = "SELECT state FROM line WHERE client = 2 AND version = 2"
        (data,) = file.execute(f"SELECT data FROM state WHERE id = ({older})").fetchone()
    whole = path.read_bytes()
    assert whole.count(data) == 1
    path.write_bytes(whole.replace(data, data[:-1] + bytes([data[-1] ^ 1])))
    with pytest.raises(DataError, match=r"the checkpoint is broken.*client 2's state is not what was written"):
        resume(tmp_path / "run", workers=1)


def test_thousands_of_clients_need_no_memory(tmp_path, monkeypatch):
    """2,000 clients with error feedback; what the shelf holds is watched at every store."""
    most, put = [0], Shelf.put

    def watched(shelf, client, record):
        entry = put(shelf, client, record)
        most[0] = max(most[0], shelf.held_bytes)
        return entry

    monkeypatch.setattr(Shelf, "put", watched)
    data = {"load": "toyworld:many", "clients": 2000}
    settings = {**FEEDBACK, "data": data, "cohort": {"fraction": 0.2}, "rounds": 2, "checkpoint": {"memory_mb": 0}}
    run(tmp_path / "files", "fedavg", **settings)
    assert most[0] == 0
    run(tmp_path / "memory", "fedavg", **{**settings, "checkpoint": {"memory_mb": 512}})
    assert most[0] > 400 * 200
    same(tmp_path / "files", tmp_path / "memory")
    assert lines(tmp_path / "files")[-1]["total_bytes"] == lines(tmp_path / "memory")[-1]["total_bytes"]


def test_large_states_stay_within_the_bound(tmp_path):
    """States of 1 MB each, 30 of them, under a bound of 5 MB: what Python holds is measured, not computed."""
    import tracemalloc

    World("fedavg").play()  # compiles what is compiled at its first call
    world = World("fedavg", data={"load": "toyworld:blobs", "clients": 30})
    train = world.side.method.train

    def fat(held, state, data):
        frame, _, metrics = train(held, {}, data)
        seen = int(state["x"][0]) if state else 0
        return frame, {"x": np.full(250_000, seen + 1, np.float32)}, metrics

    world.side.method = replace(world.side.method, train=fat)
    world.progress.records = Records(Shelf(tmp_path, 5_000_000))
    tracemalloc.start()
    try:
        for _ in range(3):
            world.play()
            world.progress.records.tidy()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert world.progress.records.shelf.held_bytes <= 5_000_000
    assert peak < 5_000_000 + 8_000_000  # the bound, and a handful of copies of the one state at hand
    record = world.progress.records[17]
    assert record.pending == arrays_to_bytes({"x": np.full(250_000, 3, np.float32)})
    assert states(world.progress.records) <= 60
