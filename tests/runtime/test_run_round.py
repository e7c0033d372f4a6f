"""One round: who is asked, what each client is sent, who is dropped and why, and that every byte is counted."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from toyworld import Spy, World, run

from thinwire import frame as frames
from thinwire.errors import DecodeError, TrainingError
from thinwire.frame import Kind
from thinwire.methods import Update
from thinwire.runtime.client import NEVER, Answer, Record, envelope, open_envelope, settle
from thinwire.runtime.pool import Inline
from thinwire.runtime.state import arrays_from_bytes
from thinwire.runtime.workers import Workers

SIX = {"load": "toyworld:blobs", "clients": 6}
FEEDBACK = {"uplink": {"id": "bfloat16", "error_feedback": True}}


def flip(frame, position=40):
    changed = bytearray(frame)
    changed[position] ^= 1
    return bytes(changed)


def mutating(client, rounds=None):
    """A pool whose wire flips a bit of one client's frames."""

    def spy(pool):
        def change(answer):
            hit = answer.client == client and answer.frame and (rounds is None or answer_round(answer) in rounds)
            return replace(answer, frame=flip(answer.frame)) if hit else answer

        return Spy(pool, change)

    return spy


def answer_round(answer):
    return frames.read(answer.frame).round + 1


# bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize(
    ("name", "settings"),
    [("fedpm", {}), ("fedavg", {}), ("fedavg", {**FEEDBACK, "downlink": {"id": "float16"}})],
)
def test_total_bytes_are_those_that_crossed(name, settings, fraction):
    world = World(name, Spy, data=SIX, cohort={"fraction": fraction}, **settings)
    entries = [world.play() for _ in range(5)]
    assert sum(entry.up_bytes for entry in entries) == sum(world.pool.up)
    assert sum(entry.down_bytes for entry in entries) == sum(world.pool.down)
    assert entries[-1].total_bytes == sum(world.pool.up) + sum(world.pool.down)
    assert len(world.pool.up) == 5 * round(6 * fraction)


def test_refused_frames_and_requests_are_counted_too():
    world = World("fedpm", mutating(2))
    entries = [world.play() for _ in range(2)]
    forget(world, 1)
    entries.append(world.play())
    assert entries[-1].total_bytes == sum(world.pool.up) + sum(world.pool.down)
    assert entries[-1].clients == 3
    requests = [answer for answer in world.pool.answered if answer.status == "keyframe"]
    assert [len(answer.frame) for answer in requests] == [37]
    assert len(world.pool.up) == 4 + 4 + 5


def test_a_round_counts_bits_per_parameter_over_the_messages_that_crossed():
    world = World("fedavg", Spy)
    entry = world.play()
    assert entry.up_bpp == pytest.approx(8 * np.mean(world.pool.up) / world.method.parameters)
    assert entry.down_bpp == pytest.approx(8 * np.mean(world.pool.down) / world.method.parameters)


# keyframes and steps -------------------------------------------------------------------------------------------------


def sent(world):
    """What each client of the last round was sent: (kind, steps)."""
    read = {client: frames.read(message) for client, message in world.pool.messages.items()}
    return {c: (f.kind, len(f.sections) if f.kind == Kind.STEP else None) for c, f in read.items()}


def forget(world, client, have=None):
    """The client falls back to an older version (or to nothing) that the server does not know of."""
    record = world.progress.records.get(client, Record())
    world.progress.records[client] = replace(record, have=have)


def test_new_clients_get_a_keyframe_and_others_the_steps_they_missed():
    world = World("fedpm", Spy, data=SIX, cohort={"size": 2}, model={"name": "mlp", "build": None})
    last_seen = {}
    kinds = set()
    for version in range(12):
        world.play()
        for client, (kind, steps) in sent(world).items():
            missed = None if client not in last_seen else version - last_seen[client]
            if missed is None:
                assert kind == Kind.KEYFRAME
            elif kind == Kind.STEP:
                assert steps == missed
            else:
                assert missed > 1  # a keyframe is sent to a client that is known only where it is the shorter
            kinds.add((kind, steps))
            last_seen[client] = version
    assert (Kind.STEP, 1) in kinds
    assert (Kind.STEP, 2) in kinds


def test_a_keyframe_is_sent_where_it_is_shorter_than_the_steps():
    # float32 steps weigh what a keyframe weighs, so two of them are never sent
    world = World("fedavg", Spy, data=SIX, cohort={"size": 2})
    last_seen = {}
    for version in range(10):
        world.play()
        for client, (kind, _) in sent(world).items():
            expected = Kind.STEP if version - last_seen.get(client, -9) == 1 else Kind.KEYFRAME
            assert kind == expected
            last_seen[client] = version


def test_clients_that_hold_the_same_version_get_the_same_bytes():
    world = World("fedpm", Spy)
    for _ in range(3):
        world.play()
        assert len(set(world.pool.messages.values())) == len(world.pool.broadcasts) == 1


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_a_client_that_lost_its_version_asks_for_a_keyframe_and_trains_in_the_same_round(name):
    world, whole = World(name, Spy), World(name)
    for _ in range(3):
        world.play()
        whole.play()
    forget(world, 2, have=1)
    entry, expected = world.play(), whole.play()
    assert entry.clients == 4
    assert entry.dropped == []
    asked = [answer for answer in world.pool.answered if answer.status == "keyframe"]
    assert [(a.client, frames.read(a.frame).kind) for a in asked] == [(2, Kind.REQUEST)]
    assert sent(world)[2] == (Kind.KEYFRAME, None)
    assert entry.up_bytes - expected.up_bytes == 37
    assert entry.down_bytes > expected.down_bytes
    # nothing that is trained depends on how the model came
    assert entry.accuracy == expected.accuracy
    assert entry.train_loss == pytest.approx(expected.train_loss)


def test_a_client_without_anything_asks_too():
    world = World("fedpm", Spy)
    world.play()
    forget(world, 0)
    assert world.play().clients == 4
    assert world.pool.answered[-1].client == 0  # asked again after the cohort


def test_a_broken_request_for_a_keyframe_drops_its_client():
    def spy(pool):
        return Spy(pool, lambda a: replace(a, frame=flip(a.frame, 5)) if a.status == "keyframe" else a)

    world = World("fedpm", spy)
    world.play()
    forget(world, 1)
    entry = world.play()
    assert entry.clients == 3
    assert entry.dropped == [{"client": 1, "reason": "frame: checksum does not match"}]


def test_a_client_that_never_stops_asking_is_dropped():
    request = frames.write(frames.Frame(Kind.REQUEST, 0, 0, 0, bytes(8)))

    def spy(pool):
        return Spy(pool, lambda a: Answer(1, "keyframe", request, a.record) if a.client == 1 else a)

    entry = World("fedpm", spy).play()
    assert entry.dropped == [{"client": 1, "reason": "asked for a keyframe twice"}]
    assert entry.clients == 3


# failing clients -----------------------------------------------------------------------------------------------------


def failing(world, client, error=None):
    """From now on the client's data cannot be read."""
    data = world.side.data

    def load(number):
        if number == client or client == "all":
            raise error or OSError("disk on fire")
        return data(number)

    world.side.data = load
    return data


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_a_client_that_raises_is_dropped_by_name_and_the_run_goes_on(name):
    world = World(name, Spy)
    world.play()
    before = world.progress
    healthy = failing(world, 2)
    entry = world.play()
    assert entry.dropped == [{"client": 2, "reason": "OSError: disk on fire"}]
    assert entry.clients == 3
    assert world.progress.records[2] is before.records[2]
    assert world.progress.have[2] == world.progress.accepted[2] == 0
    world.side.data = healthy
    entry = world.play()
    assert entry.dropped == []
    assert world.progress.have[2] == 2


def test_all_clients_failing_ends_the_run_with_the_reasons():
    world = World("fedpm")
    failing(world, "all", ValueError("no such row"))
    with pytest.raises(
        TrainingError, match=r"round 1: no update is left \(client 0: ValueError: no such row; client 1"
    ):
        world.play()
    assert world.method.version(world.progress.server) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_client_is_named_whatever_the_workers(tmp_path, monkeypatch, workers):
    from thinwire.runtime import run as runs

    client_data = runs.Assembly.client_data

    def load(assembly, client):
        if client == 1:
            raise RuntimeError("two\nlines")
        return client_data(assembly, client)

    monkeypatch.setattr(runs.Assembly, "client_data", load)
    result = run(tmp_path / "run", workers=workers, rounds=2)
    assert [entry.dropped for entry in result.rounds] == [[{"client": 1, "reason": "RuntimeError: two lines"}]] * 2


def test_a_mutated_frame_is_dropped_by_its_reason():
    world = World("fedpm", mutating(3))
    entry = world.play()
    assert entry.dropped == [{"client": 3, "reason": "frame: checksum does not match"}]
    assert entry.clients == 3
    assert 3 not in world.progress.accepted
    assert 3 not in world.progress.have
    assert world.play().clients == 3


def test_a_loss_that_is_not_finite_ends_the_run():
    world = World("fedavg", local={"lr": 9e5, "epochs": 4}, model={"name": "mlp", "build": None})
    with pytest.raises(
        TrainingError, match=r"client \d: .*(nan|inf) in round \d.* lower the learning rate \(lr = 900000\)"
    ):
        [world.play() for _ in range(5)]


# accepted or not -----------------------------------------------------------------------------------------------------


def residual(world, client):
    record = world.progress.records[client]
    return arrays_from_bytes(settle(record, world.progress.accepted.get(client, NEVER)).state)["residual"]


def test_a_residual_is_kept_once_its_frame_is_accepted():
    world = World("fedavg", **FEEDBACK)
    world.play()
    record = world.progress.records[1]
    assert record.state == b""
    assert record.pending_version == 0
    pending = arrays_from_bytes(record.pending)["residual"]
    assert pending.any()
    world.play()
    np.testing.assert_array_equal(arrays_from_bytes(world.progress.records[1].state)["residual"], pending)


@pytest.mark.parametrize("harm", ["mutated", "failed"])
def test_a_client_whose_frame_was_not_accepted_goes_on_from_its_state_of_before(harm):
    rounds = {2} if harm == "mutated" else set()
    world = World("fedavg", mutating(1, rounds), **FEEDBACK)
    world.play()
    held_before = residual(world, 1)
    if harm == "failed":
        healthy = failing(world, 1)
    entry = world.play()
    assert [drop["client"] for drop in entry.dropped] == [1]
    np.testing.assert_array_equal(residual(world, 1), held_before)
    if harm == "failed":
        world.side.data = healthy
    given = {}
    train = world.side.method.train

    def watched(held, state, data):
        given[data.client] = state["residual"].copy()
        return train(held, state, data)

    world.side.method = replace(world.side.method, train=watched)
    assert world.play().dropped == []
    np.testing.assert_array_equal(given[1], held_before)
    assert not np.array_equal(residual(world, 1), held_before)
    assert given[1].any()


def test_settle():
    record = Record(have=4, state=b"old", pending=b"new", pending_version=4)
    assert settle(record, 4) == Record(4, b"new")
    assert settle(record, 3) == settle(record, NEVER) == Record(4, b"old")
    assert settle(Record(have=4, state=b"old"), NEVER) == Record(4, b"old")  # nothing pending, nothing accepted


def test_envelopes():
    assert open_envelope(envelope(7, b"frame")) == (7, b"frame")
    assert open_envelope(envelope(NEVER, b"")) == (NEVER, b"")
    with pytest.raises(DecodeError, match="envelope: 3 bytes, at least 4 needed"):
        open_envelope(b"abc")


# memory and order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_updates_are_merged_one_by_one(name):
    world = World(name, data={"load": "toyworld:blobs", "clients": 20})
    live, most, read = weakref.WeakSet(), [0], world.method.read

    class Watched(Update):
        __hash__ = object.__hash__

    def counting(state, client, frame):
        update = read(state, client, frame)
        update = Watched(update.samples, update.value)
        live.add(update)
        most[0] = max(most[0], len(live))
        return update

    world.simulation.method = replace(world.method, read=counting)
    gc.disable()
    try:
        assert world.play().clients == 20
    finally:
        gc.enable()
    assert most[0] <= 2


def test_inline_clients_train_only_when_their_turn_is_read():
    world = World("fedpm", data={"load": "toyworld:blobs", "clients": 8})
    trained, answer = [], world.side.answer
    world.side.answer = lambda client, *rest: trained.append(client) or answer(client, *rest)
    seen = []

    def watching(state, client, frame):
        seen.append(len(trained))
        return world.method.read(state, client, frame)

    world.simulation.method = replace(world.method, read=watching)
    world.play()
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_forked_answers_come_in_order_and_few_wait():
    world = World("fedpm", data={"load": "toyworld:blobs", "clients": 12})
    orders = []
    for pool in (Inline(world.side), Workers.forked(world.side, 3)):
        world.simulation.pool, world.simulation.synced = pool, None
        spy = world.simulation.pool = Spy(pool)
        world.simulation.play(world.progress)
        pool.close()
        orders.append([(answer.client, answer.frame) for answer in spy.answered])
    assert orders[0] == orders[1]
    assert [client for client, _ in orders[0]] == list(range(12))


def test_play_is_a_function_of_the_progress_it_is_given():
    world = World("fedavg", **FEEDBACK)
    world.play()
    before = world.progress
    kept = dict(before.records), dict(before.have), dict(before.accepted), before.server.weights.copy()
    first, _ = world.simulation.play(before)
    assert (before.records, before.have, before.accepted) == kept[:3]
    np.testing.assert_array_equal(before.server.weights, kept[3])
    assert first.server.history.version == 2


def test_clients_without_samples_are_never_asked():
    data = {"load": "toyworld:blobs", "clients": 12, "partition": "dirichlet:0.05", "allow_empty": True}
    world = World("fedpm", data=data)
    sizes = [len(part) for part in world.assembly.parts]
    assert 0 in sizes
    assert world.clients == [client for client, size in enumerate(sizes) if size]
    entry = world.play()
    assert entry.clients == len(world.clients) < 12
    assert entry.dropped == []
