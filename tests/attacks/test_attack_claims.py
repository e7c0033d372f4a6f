"""What a client claims beside a valid frame: how many samples it has, how large its change is.

Who attacks: one client of four, with the run's settings and its own frames. What it sends is well-formed; the server
refuses what cannot be, by name, and goes on with the others.
"""

from dataclasses import replace

import numpy as np
import pytest
from toyworld import CLASSES, FEATURES, Spy, World, build, experiment

from thinwire import frame as frames
from thinwire.codecs import TopK
from thinwire.errors import ConfigError, DecodeError, TrainingError
from thinwire.frame import Section
from thinwire.methods import Data
from thinwire.methods.fedavg import LARGEST
from thinwire.runtime.claims import Claims
from thinwire.runtime.evaluation import Evaluation, Score
from thinwire.runtime.run import assemble

EVIL = 2


def attack(name, change, **settings):
    """A world whose client EVIL sends its frame changed."""

    def hostile(answer):
        if answer.client != EVIL or answer.status != "done":
            return answer
        return replace(answer, frame=frames.write(change(frames.read(answer.frame))))

    return World(name, spy=lambda pool: Spy(pool, hostile), **settings)


def claiming(samples):
    return lambda frame: replace(frame, samples=samples)


def filled(value):
    """All values of a float32 update."""

    def change(frame):
        ((sort, payload),) = frame.sections
        return replace(frame, sections=((sort, np.full(len(payload) // 4, value, np.float32).tobytes()),))

    return change


def weights(world):
    parts = [tensor.numpy().ravel() for tensor in world.method.model(world.progress.server).state_dict().values()]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ["fedavg", "fedpm", "scaffold", "ssfl"])
@pytest.mark.parametrize("samples", [16, 2**24])
def test_a_client_that_claims_more_samples_than_it_was_dealt_is_refused(name, samples):
    settings = {"method": {"density": 0.5}} if name == "ssfl" else {}
    world = attack(name, claiming(samples), **settings)
    entry = world.play()
    reason = f"update: says it is of {samples} samples, at most 15 (server.max_samples)"
    assert entry.dropped == [{"client": EVIL, "reason": reason}]
    assert entry.clients == 3
    assert EVIL not in world.progress.accepted


def test_a_claim_within_what_was_dealt_counts():
    entry = attack("fedavg", claiming(15)).play()
    assert entry.clients == 4


def dealt(client):
    return {0: 15, 1: 900}[client]


@pytest.mark.parametrize(("claims", "client", "most"), [
    (Claims(dealt), 0, 15),
    (Claims(dealt, told=7), 0, 7),
    (Claims(dealt, told=70), 0, 15),
    (Claims(dealt, own=True), 0, 400),  # ten times the median claim
    (Claims(dealt, own=True), 1, 900),  # or what it was dealt
    (Claims(dealt, told=7, own=True), 0, 7),
    (Claims(dealt, told=2000, own=True), 0, 2000),
])  # fmt: skip
def test_the_most_that_a_client_may_claim(claims, client, most):
    assert claims.most(client, [50, 40, 2**24, 30]) == most


def test_the_setting_is_a_whole_number():
    assert assemble(experiment("fedavg", server={"max_samples": 7})).claims.most(0, []) == 7
    for wrong in (0, -1, 1.5, True, "many"):
        with pytest.raises(ConfigError, match=r"server\.max_samples"):
            assemble(experiment("fedavg", server={"max_samples": wrong}))


@pytest.mark.parametrize(("samples", "refused"), [(150, []), (151, [EVIL]), (2**24, [EVIL])])
def test_where_samples_are_the_clients_own_the_median_claim_of_the_round_bounds_each(samples, refused):
    world = attack("fedavg", claiming(samples))  # the others have 15
    world.simulation.claims = Claims(lambda client: 1, own=True)
    for _ in range(2):
        assert [drop["client"] for drop in world.play().dropped] == refused


def scored(*counts):
    return Evaluation([Score(client, count, 0.5, 1.0) for client, count in enumerate(counts)])


@pytest.mark.parametrize(("own", "counts", "refused"), [
    (False, (5, 15, 15, 3), []),
    (False, (5, 16, 15, 2**32 - 1), [1, 3]),
    (True, (5, 200, 20, 20), []),
    (True, (5, 201, 20, 20), [1]),
    (True, (2**32 - 1, 6, 4, 7), [0]),
])  # fmt: skip
def test_a_score_over_more_samples_than_its_client_holds_back_does_not_count(own, counts, refused):
    evaluation = scored(*counts)
    evaluation.bound(Claims(lambda client: 15, own=own))
    assert [drop["client"] for drop in evaluation.dropped] == refused
    assert [score.client for score in evaluation.scores] == [k for k in range(4) if k not in refused]
    assert all("samples, at most" in drop["reason"] for drop in evaluation.dropped)


def test_a_claim_in_a_frame_that_is_cut_is_none():
    assert frames.claim(b"TW") == 0


@pytest.mark.parametrize("settings", [
    {}, {"server": {"optimizer": "fedadam"}}, {"server": {"aggregate": "median"}}, {"downlink": {"id": "stc"}},
], ids=["mean", "fedadam", "median", "stc down"])  # fmt: skip
@pytest.mark.parametrize("value", [3.4e38, -1e30, 2 * LARGEST])
def test_a_client_with_huge_values_is_refused_and_the_others_go_on(value, settings):
    world = attack("fedavg", filled(value), **settings)
    for _ in range(3):
        entry = world.play()
        (drop,) = entry.dropped
        assert drop["client"] == EVIL
        assert drop["reason"].startswith(f"update: an entry of {abs(np.float32(value)):.3g}, at most 1.68e+07 allowed")
        assert np.isfinite(entry.loss)
    assert np.abs(weights(world)).max() < 10


# the second line: a merge that makes the server's state NaN or infinite is no round -----------------------------------


def poisoned(**settings):
    """A world whose second merge makes a weight infinite."""
    world = World("fedavg", **settings)
    merge, merges = world.method.merge, []

    def bad(state, updates):
        merged = merge(state, updates)
        merges.append(merged)
        return replace(merged, weights=merged.weights * np.inf) if len(merges) == 2 else merged

    world.simulation.method = replace(world.method, merge=bad)
    return world


def test_a_merge_that_is_not_finite_ends_the_run_before_it_is_committed():
    world = poisoned()
    world.play()
    before = world.progress
    with pytest.raises(TrainingError, match="round 2: the updates together make weights NaN or infinite"):
        world.play()
    assert world.progress is before
    assert world.play().round == 2


@pytest.mark.parametrize(("policy", "tries", "skipped"), [("repeat", 2, False), ("skip", 1, True)])
def test_a_merge_that_is_not_finite_is_a_round_without_quorum(policy, tries, skipped):
    world = poisoned(cohort={"without_quorum": policy})
    world.play()
    version = world.method.version(world.progress.server)
    entry = world.play()
    assert (entry.tries, bool(entry.skipped)) == (tries, skipped)
    assert world.method.version(world.progress.server) == version + (not skipped)
    assert [drop["reason"] for drop in entry.dropped] == [
        "not merged: the updates together make weights NaN or infinite"
    ] * 4
    assert np.isfinite(weights(world)).all()


# two ends with different codecs ---------------------------------------------------------------------------------------


def test_codecs_whose_tags_collide_are_told_apart_by_the_run():
    here, there = (build("fedavg", uplink=TopK(keep=keep)) for keep in (0.008, 0.012))
    message = here.broadcast(here.init(), None)
    with pytest.raises(DecodeError, match=r"frame: of run .*, this is run "):
        there.receive(message, None, None)
    x, y = np.ones((6, FEATURES), np.float32), np.arange(6) % CLASSES
    held = here.receive(message, None, None)
    frame = here.train(held, {}, Data(0, x, y))[0]
    with pytest.raises(DecodeError, match=r"frame: of run "):
        there.read(there.init(), 0, frame)
    assert frames.read(frame).all(Section.VALUES)


def test_a_resumed_runs_codecs_make_the_run_of_its_defaults():
    made = assemble(experiment("fedavg"))
    assert assemble(made.resolved).run_id == made.run_id
