"""The fault model: every fault under every method ends in the ledger, and a round counts whole or not at all."""

import numpy as np
import pytest
from toyworld import Spy, World, experiment, lines, model_bytes, run

from thinwire import frame as frames
from thinwire.codecs import CODECS, tag
from thinwire.errors import ConfigError, DecodeError, TrainingError
from thinwire.methods import METHODS
from thinwire.runtime import faults
from thinwire.runtime.client import settle
from thinwire.runtime.experiment import FaultSettings, parse
from thinwire.runtime.pool import Task
from thinwire.runtime.run import resume
from thinwire.runtime.state import arrays_from_bytes

SIX = {"load": "toyworld:blobs", "clients": 6}
FEEDBACK = {"uplink": {"id": "bfloat16", "error_feedback": True}}
KINDS = {
    "drop": {"drop": 0.4}, "late": {"delay": 1.0, "deadline": 0.9}, "mutate": {"mutate": 0.4},
    "replay": {"replay": 0.4}, "wrong_layout": {"wrong_layout": 0.4}, "nan": {"nan": 0.34},
    "scale": {"scale": 0.34, "scale_by": 3.0}, "sign_flip": {"sign_flip": 0.34},
}  # fmt: skip
REASONS = {
    "drop": "dropped on the way", "late": "late: ", "mutate": "frame: ", "replay": "frame: of round",
    "wrong_layout": "the two ends differ in model",
}  # fmt: skip
ALL = {"drop": 0.15, "delay": 1.0, "deadline": 2.5, "mutate": 0.1, "replay": 0.2, "wrong_layout": 0.1, "sign_flip": 0.2}


def task(client, number):
    return Task(client, 0, 0, lambda: None, try_number=number)


def fates(rounds=400, **settings):
    made = FaultSettings(**settings)
    return [faults.fate_of(made, 5, task(client, r)) for r in range(1, rounds + 1) for client in range(5)]


# every method --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_plays_on_under_every_fault(name, kind):
    density = {"density": 0.5} if name in ("ssfl", "client-masks", "dispfl", "sparsyfed") else {}
    world = World(name, Spy, data=SIX, faults=KINDS[kind], method=density, cohort={"without_quorum": "skip"})
    entries = [world.play() for _ in range(4)]
    drops = [drop["reason"] for entry in entries for drop in entry.dropped]
    assert all(entry.clients + len(entry.dropped) == 6 for entry in entries)
    assert entries[-1].total_bytes == sum(world.pool.up) + sum(world.pool.down)
    if kind in REASONS:
        assert drops
        assert all(REASONS[kind] in reason for reason in drops)
    elif kind == "nan" and name != "local":  # whose frames hold nothing
        first = 1 if name == "ssfl" else 0  # saliencies are honest
        assert [len(entry.dropped) for entry in entries] == [0] * first + [2] * (4 - first)
        assert all("NaN" in reason or "a mask of zeros and ones" in reason for reason in drops)
    else:
        assert not drops


@pytest.mark.parametrize("codec", ["fedzip", "m22", "stc", "thin", "eden", "qsgd", "count-sketch"])
@pytest.mark.parametrize("kind", ["nan", "scale", "sign_flip"])
def test_malicious_updates_go_through_every_codec(codec, kind):
    world = World("fedavg", data=SIX, faults=KINDS[kind], uplink={"id": codec, "error_feedback": True})
    entry = world.play()
    assert entry.clients == (4 if kind == "nan" else 6)
    assert all("NaN" in drop["reason"] for drop in entry.dropped)


# what is drawn -------------------------------------------------------------------------------------------------------


def test_rates_are_what_they_say():
    found = fates(drop=0.2, mutate=0.1, delay=2.0, deadline=3.0)
    dropped = np.mean([fate.lost.startswith("dropped") for fate in found])
    late = np.mean([fate.lost.startswith("late") for fate in found])
    assert dropped == pytest.approx(0.2, abs=0.03)
    assert late == pytest.approx(0.8 * np.exp(-1.5), abs=0.03)
    assert np.mean([fate.kind == "mutate" for fate in found]) == pytest.approx(0.1, abs=0.02)


def test_one_rate_changes_nothing_of_another():
    some, more = fates(mutate=0.1), fates(mutate=0.1, drop=0.3, replay=0.2, delay=1.0, deadline=1.0)
    assert [fate.kind == "mutate" for fate in some] == [fate.kind == "mutate" for fate in more]
    one, other = (fates(rounds=20, drop=0.5) for _ in range(2))
    assert [fate.lost for fate in one] == [fate.lost for fate in other]


def test_nothing_happens_unless_told():
    assert not any(fate.lost or fate.kind for fate in fates(rounds=50))
    made = World("fedavg")
    assert faults.played(made.assembly) is made.method
    assert faults.faulty(made.pool, made.assembly) is made.pool


def test_malicious_clients_are_a_fraction_for_the_whole_run_and_no_client_is_two():
    clients = {"load": "toyworld:many", "clients": 30}
    settings = {"sign_flip": 0.2, "scale": 0.1, "nan": 0.1}
    liars = faults.Deceit(World("fedavg", data=clients).assembly, FaultSettings(**settings)).liars
    assert sorted(liars.values()) == ["nan"] * 3 + ["scale"] * 3 + ["sign_flip"] * 6
    others = faults.Deceit(World("fedavg", data=clients, seed=4).assembly, FaultSettings(**settings)).liars
    assert set(others) != set(liars)


def test_a_mutated_frame_is_another_and_refused():
    honest = frames.write(frames.Frame(frames.Kind.UPDATE, 7, 3, 9, b"12345678", ((1, b"some payload"),), samples=4))
    draw = np.random.default_rng(0)
    lengths = set()
    for _ in range(600):
        broken = faults.mutated(honest, draw)
        lengths.add(len(broken))
        with pytest.raises(DecodeError):
            frames.read(broken)
    assert len(lengths) > 30  # cut anywhere
    assert faults.mutated(b"x", draw) != b"x"


# malicious clients ---------------------------------------------------------------------------------------------------


def first_updates(name, **settings):
    world = World(name, Spy, data=SIX, **settings)
    state = world.progress.server
    world.play()
    return world, {a.client: world.method.read(state, a.client, a.frame).value for a in world.pool.answered}


@pytest.mark.parametrize(("kind", "factor"), [("sign_flip", -1.0), ("scale", 3.0)])
def test_a_malicious_client_sends_a_valid_frame_of_another_update(kind, factor):
    _, honest = first_updates("fedavg")
    world, found = first_updates("fedavg", faults=KINDS[kind])
    liars = faults.Deceit(world.assembly, world.assembly.experiment.faults).liars
    assert len(liars) == 2
    for client, value in found.items():
        wanted = honest[client] * np.float32(factor) if client in liars else honest[client]
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize(("kind", "wanted"), [("sign_flip", lambda m: 1 - m), ("scale", lambda m: 0 * m + 1)])
def test_a_malicious_mask_is_inverted_or_full(kind, wanted):
    _, honest = first_updates("fedpm")
    world, found = first_updates("fedpm", faults=KINDS[kind])
    liars = faults.Deceit(world.assembly, world.assembly.experiment.faults).liars
    for client, mask in found.items():
        np.testing.assert_array_equal(mask, wanted(honest[client]) if client in liars else honest[client])


def test_a_malicious_client_remembers_what_an_honest_one_would():
    residuals = []
    for settings in ({}, {"faults": {"sign_flip": 0.34}}):
        world = World("fedavg", data=SIX, **FEEDBACK, **settings)
        world.play()
        residuals.append({client: record.pending for client, record in world.progress.records.items()})
    assert residuals[0] == residuals[1]


@pytest.mark.parametrize("name", [name for name, kind in CODECS.items() if kind.dtype in ("float32", "uint8")])
def test_a_lying_codec_has_the_tag_of_the_honest_one(name):
    codec = CODECS[name]()
    assert tag(faults.lying(codec, lambda x: x)) == tag(codec)


# replayed frames -----------------------------------------------------------------------------------------------------


def test_a_replayed_frame_is_the_last_one_accepted_and_its_sender_goes_on():
    world = World("fedavg", Spy, data=SIX, faults={"replay": 0.5}, **FEEDBACK)
    accepted, replayed = {}, 0
    for _ in range(6):
        seen = len(world.pool.answered)
        entry = world.play()
        dropped = {drop["client"] for drop in entry.dropped}
        for answer in world.pool.answered[seen:]:
            if answer.client in dropped:
                assert answer.frame == accepted[answer.client]
                replayed += 1
            else:
                accepted[answer.client] = answer.frame
    assert replayed > 5
    assert entry.clients + len(dropped) == 6


def test_a_client_whose_frame_was_lost_keeps_its_residual():
    world, checked = World("fedavg", data=SIX, faults={"drop": 0.3, "mutate": 0.2, "replay": 0.2}, **FEEDBACK), 0

    def residual(client):
        record = world.progress.records.of(client)
        return arrays_from_bytes(settle(record, world.progress.accepted.get(client, -1)).state).get("residual")

    for _ in range(5):
        before = {client: residual(client) for client in range(6)}
        for drop in world.play().dropped:
            checked += before[drop["client"]] is not None
            np.testing.assert_array_equal(residual(drop["client"]), before[drop["client"]])
    assert checked > 3


# runs ----------------------------------------------------------------------------------------------------------------

RUNS = {
    "fedavg + feedback": ("fedavg", {**FEEDBACK, "data": SIX, "faults": ALL}),
    "fedpm": ("fedpm", {"data": SIX, "faults": {**ALL, "nan": 0.2}}),
    "repeated": ("fedavg", {"data": SIX, "faults": {"drop": 0.5}, "rounds": 5,
                            "cohort": {"size": 4, "min_replies": 3, "without_quorum": "repeat", "tries": 30}}),
    "skipped": ("fedavg", {**FEEDBACK, "data": SIX, "faults": {"drop": 0.5, "replay": 0.2}, "rounds": 6,
                           "downlink": {"id": "float16"},
                           "cohort": {"size": 4, "min_replies": 3, "without_quorum": "skip"}}),
    "ssfl, skipped": ("ssfl", {"data": SIX, "faults": {"drop": 0.5}, "rounds": 6, "method": {"density": 0.5},
                               "cohort": {"min_replies": 4, "without_quorum": "skip"}}),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_faults_do_not_depend_on_the_workers_or_on_being_resumed(case, tmp_path):
    name, settings = RUNS[case]

    class Stop(Exception):
        pass

    def stop(entry, rounds):
        if entry.round == 2:
            raise Stop

    run(tmp_path / "one", name, **settings)
    run(tmp_path / "two", name, workers=2, **settings)
    with pytest.raises(Stop):
        run(tmp_path / "three", name, on_round=stop, **settings)
    resume(tmp_path / "three", workers=1)
    for other in ("two", "three"):
        assert lines(tmp_path / other) == lines(tmp_path / "one")
        assert model_bytes(tmp_path / other) == model_bytes(tmp_path / "one")
    assert any(line["dropped"] for line in lines(tmp_path / "one"))


def test_clients_score_the_model_untouched(tmp_path):
    data = {**SIX, "test_fraction": 0.3}
    settings = {"data": data, "faults": {"drop": 0.5, "replay": 0.5}, "evaluation": {"every": 1}}
    result = run(tmp_path / "run", "fedavg", **settings)
    assert all(not drop["reason"].startswith("evaluation") for entry in result.rounds for drop in entry.dropped)
    assert result.summary["evaluated_clients"] == 6


# without quorum ------------------------------------------------------------------------------------------------------

QUORUM = {"data": SIX, "faults": {"drop": 0.5}}


def test_a_round_without_quorum_ends_the_run_unless_told_otherwise():
    world = World("fedavg", **QUORUM, cohort={"min_replies": 6})
    with pytest.raises(TrainingError, match=r"round 1: \d updates, cohort.min_replies is 6 \(client \d: dropped on"):
        world.play()
    assert world.progress.played == 0


def test_a_skipped_round_leaves_all_as_it_was_and_says_so():
    world = World("fedavg", Spy, **QUORUM, cohort={"min_replies": 4, "without_quorum": "skip"})
    skipped = counted = 0
    for number in range(1, 9):
        before = world.progress
        entry = world.play()
        assert entry.round == number
        assert entry.total_bytes == sum(world.pool.up) + sum(world.pool.down)
        if entry.skipped:
            skipped += 1
            assert "cohort.min_replies is 4" in entry.skipped
            assert (entry.clients, entry.train_loss, entry.tries) == (0, None, 1)
            assert len(entry.dropped) == 6
            assert any(drop["reason"].startswith("not merged: ") for drop in entry.dropped)
            assert entry.up_bytes > 0
            assert world.progress.server is before.server
            assert (world.progress.have, world.progress.accepted) == (before.have, before.accepted)
            assert world.progress.records == before.records
        else:
            counted += 1
            assert entry.clients >= 4
    assert skipped
    assert counted
    assert world.method.version(world.progress.server) == counted
    assert world.progress.played == world.progress.tries == 8


def test_a_repeated_round_asks_another_cohort_and_counts_all_bytes():
    cohort = {"size": 3, "min_replies": 3, "without_quorum": "repeat", "tries": 40}
    world = World("fedavg", Spy, data={"load": "toyworld:blobs", "clients": 12}, faults={"drop": 0.4}, cohort=cohort)
    entries = [world.play() for _ in range(3)]
    tries = sum(entry.tries for entry in entries)
    assert tries > 3
    assert [entry.clients for entry in entries] == [3, 3, 3]
    assert all(entry.skipped is None for entry in entries)
    assert len(world.pool.down) == 3 * tries
    assert entries[-1].total_bytes == sum(world.pool.up) + sum(world.pool.down)
    assert sum(len(entry.dropped) for entry in entries) == 3 * (tries - 3)
    assert len({answer.client for answer in world.pool.answered[: 3 * entries[0].tries]}) > 3 or entries[0].tries == 1
    assert world.method.version(world.progress.server) == 3
    assert world.progress.tries == tries


def test_a_repeated_round_ends_the_run_after_so_many_tries():
    world = World("fedavg", Spy, data=SIX, faults={"drop": 1.0}, cohort={"without_quorum": "repeat", "tries": 3})
    with pytest.raises(TrainingError, match=r"round 1: no update is left \(client 0: dropped on the way"):
        world.play()
    assert len(world.pool.down) == 3 * 6


@pytest.mark.parametrize("name", ["fedavg", "fedpm", "ssfl", "dispfl"])
def test_a_run_in_which_every_answer_is_lost_ends_where_it_began(name, tmp_path):
    result = run(tmp_path / "run", name, data=SIX, faults={"drop": 1.0}, cohort={"without_quorum": "skip"})
    assert [entry.skipped for entry in result.rounds] == [
        "no saliency is left" if name == "ssfl" else "no update is left"
    ] * 3
    assert [entry.round for entry in result.rounds] == [1, 2, 3]
    assert result.rounds[-1].accuracy == result.summary["initial_accuracy"]
    assert result.summary["up_bytes"] == 0
    assert result.rounds[-1].total_bytes == result.summary["down_bytes"] > 0


def test_krum_without_enough_updates_is_a_round_without_quorum():
    server = {"aggregate": "krum", "byzantine": 1}
    world = World("fedavg", **QUORUM, server=server, cohort={"without_quorum": "skip"})
    skips = [entry.skipped for entry in (world.play() for _ in range(6))]
    assert any(skip and "5 needed with server.byzantine = 1" in skip for skip in skips)
    assert world.method.version(world.progress.server) == skips.count(None)


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"faults": {"drop": 1.1}}, "faults.drop = 1.1: input should be less than or equal to 1"),
        ({"faults": {"mutate": -0.1}}, "faults.mutate = -0.1: input should be greater than or equal to 0"),
        ({"faults": {"replay": "often"}}, "faults.replay = 'often': input should be a valid number"),
        ({"faults": {"dorp": 0.1}}, "faults.dorp = 0.1: unknown field, known: drop, delay, deadline"),
        ({"faults": {"delay": 2.0}}, "faults.deadline = None: given together with delay"),
        ({"faults": {"deadline": 2.0}}, "faults.deadline = 2.0: given together with delay"),
        ({"faults": {"nan": 0.6, "scale": 0.6}}, "faults.nan + scale + sign_flip = 1.2: at most 1"),
        ({"faults": {"scale_by": 1e7}}, "faults.scale_by = 10000000.0: input should be less than 1000000"),
        ({"cohort": {"without_quorum": "wait"}}, "cohort.without_quorum = 'wait': input should be 'stop', 'repeat' or"),
        ({"cohort": {"tries": 0}}, "cohort.tries = 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_faults_leave_the_frames_of_honest_clients_alone():
    plain, faulty = World("fedavg"), World("fedavg", faults={"drop": 0.1}, cohort={"without_quorum": "skip"})
    assert plain.assembly.run_id == faulty.assembly.run_id
    assert experiment("fedavg", faults={"scale_by": 5.0}).faults.any is False
