"""How the server puts changes together."""

from dataclasses import replace

import numpy as np
import pytest
from toyworld import World, build

from thinwire.codecs.entries import Entries
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods.aggregate import Mean, majority
from thinwire.methods.base import Update
from thinwire.methods.server import Majority

LAYOUT = Layout.of({"a": (2, 3), "e": (0,), "b": (2,)})


def updates(seed=0, clients=5):
    draw = np.random.default_rng(seed)
    return [Update(n + 1, draw.normal(size=LAYOUT.size).astype(np.float32)) for n in range(clients)]


def test_the_mean_is_weighted_by_samples():
    given = updates()
    wanted = np.average([u.value for u in given], axis=0, weights=[u.samples for u in given])
    np.testing.assert_allclose(Mean()(iter(given), LAYOUT), wanted, rtol=1e-6)


def test_the_majority_decides_the_sign_and_the_tensor_the_size():
    given = updates()
    result = majority(iter(given), LAYOUT)
    stacked = np.stack([u.value for u in given])
    np.testing.assert_array_equal(np.sign(result), np.sign(np.sign(stacked).sum(axis=0)))
    np.testing.assert_allclose(np.abs(result[:6]), np.abs(stacked[:, :6]).mean(), rtol=1e-6)
    np.testing.assert_allclose(np.abs(result[6:]), np.abs(stacked[:, 6:]).mean(), rtol=1e-6)


def test_a_tie_is_no_step():
    half = Update(1, np.ones(LAYOUT.size, np.float32))
    other = Update(1, -np.ones(LAYOUT.size, np.float32))
    assert not majority([half, other], LAYOUT).any()


@pytest.mark.parametrize("rule", [Mean(), majority], ids=["mean", "majority"])
def test_nothing_without_updates_and_one_at_a_time(rule):
    assert rule(iter(()), LAYOUT) is None
    alive = []

    def stream():
        for update in updates(clients=4):
            alive.append(update)
            yield update

    assert rule(stream(), LAYOUT).dtype == np.float32
    assert len(alive) == 4


def test_majority_vote_trains_with_one_bit_both_ways():
    both = {"uplink": {"id": "signsgd", "error_feedback": True}, "downlink": {"id": "signsgd"}}
    world = World("fedavg", server={"optimizer": "majority"}, cohort={"fraction": 1.0}, **both)
    ledger = [world.play() for _ in range(12)]
    assert min(entry.loss for entry in ledger[6:]) < ledger[0].loss
    payload = 4 * 4 + (world.method.parameters + 7) // 8  # a scale a tensor, a bit a weight
    assert ledger[1].up_bytes == ledger[1].clients * (37 + 6 + payload)
    assert ledger[1].down_bytes == ledger[1].clients * (4 + 37 + 6 + payload)


def test_fedpm_counts_and_takes_no_other_rule():
    with pytest.raises(ConfigError, match=r"server\.optimizer = Majority\(lr=1\.0\): mean for fedpm"):
        build("fedpm", server=Majority())


@pytest.mark.parametrize("uplink", [{"id": "topk", "keep": 0.1}, {"id": "fedzip", "keep": 0.1}, {"id": "stc"}])
def test_an_update_of_a_sparse_codec_is_added_as_the_entries_that_it_has(uplink):
    """The same mean, bit for bit, as of its arrays."""
    world = World("fedavg", uplink=uplink)
    read, seen = world.method.read, []

    def watched(state, client, message):
        seen.append(read(state, client, message))
        return seen[-1]

    world.simulation.method = replace(world.method, read=watched)
    world.play()
    assert len(seen) == 4
    assert all(isinstance(update.change, Entries) for update in seen)
    arrays = [Update(update.samples, update.value) for update in seen]
    layout = Layout.of({"all": (seen[0].value.size,)})
    np.testing.assert_allclose(majority(iter(seen), layout), majority(iter(arrays), layout), rtol=1e-6)
    mean = Mean()
    assert mean(iter(seen), layout).tobytes() == mean(iter(arrays), layout).tobytes()
    assert world.progress.server.change.tobytes() == mean(iter(seen), layout).tobytes()
