"""FedPM: options, evaluation modes, coding against shared counts, what the server refuses to read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toyworld import World, build, experiment, lines, run

from thinwire import frame as frames
from thinwire.codecs import Context, Float32, Mask, Votes, tag
from thinwire.errors import ConfigError, DecodeError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import Data, Update
from thinwire.methods.base import sample_cohort
from thinwire.methods.fedpm import Options, binary_entropy
from thinwire.runtime.run import assemble

D = 5 * 6 + 5 + 3 * 5 + 3


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ({"gain": 0.0}, "method.gain = 0.0: above 0"),
        ({"gain": float("nan")}, "method.gain = nan"),
        ({"gain": float("inf")}, "method.gain = inf"),
        ({"gain": "2"}, "method.gain = '2': a value of type float"),
        ({"epsilon": 0.0}, "method.epsilon = 0.0: between 0 and 0.5"),
        ({"epsilon": 0.5}, "method.epsilon = 0.5"),
        ({"straight_through": "none"}, "method.straight_through = 'none': one of identity, probability"),
        ({"evaluation": "median"}, "method.evaluation = 'median': one of mean, threshold, sample"),
        ({"prior": 0.5}, "method.prior = 0.5: at least 1"),
        ({"reset_every": -1}, "method.reset_every = -1"),
        ({"reset_every": 1.5}, "method.reset_every = 1.5: a value of type int"),
        ({"ship": "best"}, "method.ship = 'best': one of diffusion, threshold, sample"),
        ({"sparsity": -1.0}, "method.sparsity = -1.0: at least 0"),
        ({"share_counts": 1}, "method.share_counts = 1: a value of type bool"),
        ({"density": 0.1}, "method.density = 0.1: unknown field, known: gain, epsilon"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(option, allowed):
    with pytest.raises(ConfigError) as caught:
        build("fedpm", options=option)
    assert str(caught.value).startswith(allowed)


def test_whole_numbers_serve_as_floats():
    assert build("fedpm", options={"gain": 2, "sparsity": 1}).init.__self__.options == Options(gain=2.0, sparsity=1.0)


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"uplink": Float32()}, "uplink = 'float32': a codec for uint8 arrays, mask for example"),
        ({"downlink": Mask()}, "downlink = 'mask': a codec for uint32 arrays, votes for example"),
        ({"error_feedback": True}, "uplink.error_feedback = True: false for fedpm"),
    ],
)
def test_codecs_of_another_kind_are_refused(setup, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        build("fedpm", **setup)


def test_a_model_that_cannot_be_masked_is_refused_before_the_run_begins():
    with pytest.raises(ConfigError, match="a model with weights to mask"):
        assemble(experiment("fedpm", model={"build": "toyworld:norm_alone"}))


# the tally -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1, 2, 3, 10, 49, 98, 103, 147, 1000])
def test_the_prior_returns_once_every_client_has_had_its_turn(clients):
    # 1 / (1 / 49) is 49.00000000000001
    method = build("fedpm", fraction=1 / clients)
    state = replace_version(method.init(), clients)
    state = method.merge(state, [update(np.ones(D, np.uint8))])
    assert state.tally.total == 1  # a reset was due
    assert method.merge(state, [update(np.ones(D, np.uint8))]).tally.total == (2 if clients > 1 else 1)


def replace_version(state, version):
    tally = replace(state.tally, total=5, ones=np.full(D, 3, np.uint32))
    return replace(state, history=replace(state.history, version=version), tally=tally)


def update(mask):
    return Update(1, mask)


def test_reset_every_is_taken_at_its_word():
    method = build("fedpm", options={"reset_every": 3})
    state, totals = method.init(), []
    for _ in range(7):
        state = method.merge(state, [update(np.zeros(D, np.uint8)), update(np.ones(D, np.uint8))])
        totals.append(state.tally.total)
    assert totals == [2, 4, 6, 2, 4, 6, 2]
    np.testing.assert_array_equal(state.tally.theta(), 0.5)


def test_scores_start_within_epsilon():
    # all clients agree on every weight; without the clip the scores would be infinite and never move again
    method = build("fedpm", options={"epsilon": 0.01})
    state = method.merge(method.init(), [update(np.ones(D, np.uint8))] * 3)
    held = method.receive(method.broadcast(state, None), None, None)
    method.train(held, {}, Data(0, np.zeros((1, 6), np.float32), np.zeros(1, np.int64)))
    scores = method.init.__self__.masked.trained.numpy()
    assert np.isfinite(scores).all()
    assert abs(scores - np.log(0.99 / 0.01)).max() <= 0.11  # one Adam step of 0.1


def test_evaluation_modes():
    masks = np.random.default_rng(0).integers(0, 2, (3, D), dtype=np.uint8)
    theta = masks.mean(axis=0).astype(np.float32)
    frozen = build("fedpm").init.__self__.masked.frozen.numpy()
    weights = {}
    for mode in ("mean", "threshold", "sample"):
        method = build("fedpm", options={"evaluation": mode})
        state = method.merge(method.init(), [update(mask) for mask in masks])
        first, again = (torch.cat([p.detach().ravel() for p in method.model(state).parameters()]) for _ in range(2))
        assert torch.equal(first, again)  # a sample too is a function of the state
        weights[mode] = first.numpy().copy()
    np.testing.assert_allclose(weights["mean"], frozen * theta, rtol=1e-6)
    np.testing.assert_array_equal(weights["threshold"], frozen * (theta > 0.5))
    kept = weights["sample"] / frozen
    assert set(kept.tolist()) <= {0.0, 1.0}
    assert (kept[theta == 0] == 0).all()
    assert (kept[theta == 1] == 1).all()
    assert 0 < kept[(theta > 0) & (theta < 1)].mean() < 1


def test_a_client_evaluates_the_servers_model():
    world = World("fedpm", method={"evaluation": "threshold"})
    world.play()
    state, data = world.progress.server, world.assembly.dataset.test
    held = world.method.receive(world.method.broadcast(state, None), None, None)
    ours = world.assembly.evaluate(world.method.model(state))
    assert world.method.evaluate(held, {}, Data(0, data.x, data.y)) == ours


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_sharing_counts_changes_the_bytes_and_nothing_else(tmp_path, fraction):
    settings = {"rounds": 6, "cohort": {"fraction": fraction}, "data": {"load": "toyworld:blobs", "clients": 6}}
    shared = run(tmp_path / "shared", **settings)
    alone = run(tmp_path / "alone", method={"share_counts": False}, **settings)
    same = ("round", "accuracy", "loss", "train_loss", "clients", "dropped", "up_bpp_marginal", "down_bytes")
    for a, b in zip(lines(tmp_path / "shared"), lines(tmp_path / "alone"), strict=True):
        assert {key: a[key] for key in same} == {key: b[key] for key in same}
    for p, q in zip(shared.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_sharing_counts_gives_the_same_tally_for_fewer_bytes():
    wide = {"model": {"name": "mlp", "build": None}, "rounds": 3}
    worlds = [World("fedpm", method={"share_counts": share}, **wide) for share in (True, False)]
    entries = [[world.play() for _ in range(3)] for world in worlds]
    tallies = [world.progress.server.tally for world in worlds]
    np.testing.assert_array_equal(tallies[0].ones, tallies[1].ones)
    assert entries[0][0].up_bytes == entries[1][0].up_bytes  # nothing is shared yet
    for a, b in zip(entries[0][1:], entries[1][1:], strict=True):
        assert a.up_bytes < 0.95 * b.up_bytes
        assert b.up_bpp >= b.up_bpp_marginal > a.up_bpp  # the named bound is one for the coding without counts


@pytest.mark.parametrize(("density", "bits"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.05, 0.2863969571159562)])
def test_binary_entropy(density, bits):
    assert binary_entropy(density) == pytest.approx(bits)


# what the server refuses ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def round_two():
    """A method, the server's state after one round, and a good frame for the round that follows."""
    world = World("fedpm")
    world.play()
    state, method = world.progress.server, world.method
    held = method.receive(method.broadcast(state, None), None, None)
    message, _, _ = method.train(held, {}, world.assembly.client_data(0))
    return method, state, message


def test_a_good_frame_is_read(round_two):
    method, state, message = round_two
    update = method.read(state, 0, message)
    assert update.value.shape == (D,)
    assert update.samples == 15
    assert update.marginal_bits == pytest.approx(binary_entropy(update.value.mean()) * D)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": 1}, "of run 00000001"),
        ({"kind": Kind.KEYFRAME}, "kind keyframe, expected update"),
        ({"kind": Kind.REQUEST}, "kind request, expected update"),
        ({"round": 0}, "of round 0, this is round 1"),
        ({"round": 2}, "of round 2, this is round 1"),
        ({"codec": tag(Votes())}, "codec tag"),
        ({"layout": bytes(8)}, "layout 0000000000000000"),
        ({"samples": 0}, "update: 0 samples"),
        ({"sections": ()}, "0 sections, values_shared alone expected"),
        ({"sections": ((Section.VALUES, b"\x01"),)}, "0 sections values_shared"),
        ({"sections": ((Section.VALUES_SHARED, b""),)}, "varint: payload ends"),
        ({"sections": ((Section.VALUES_SHARED, b"\x01\xff\xff\x03"),)}, "varint"),
    ],
)
def test_a_wrong_frame_is_refused_by_its_own_reason(round_two, change, reason):
    method, state, message = round_two
    with pytest.raises(DecodeError, match=reason):
        method.read(state, 0, frames.write(replace(frames.read(message), **change)))


def test_every_flipped_bit_and_every_truncation_is_refused(round_two):
    method, state, message = round_two
    for position in range(len(message)):
        for bit in range(8):
            flipped = bytearray(message)
            flipped[position] ^= 1 << bit
            with pytest.raises(DecodeError):
                method.read(state, 0, bytes(flipped))
        with pytest.raises(DecodeError):
            method.read(state, 0, message[:position])


def test_a_mask_coded_without_counts_is_refused_where_counts_are_shared(round_two):
    method, state, _ = round_two
    algorithm = method.init.__self__
    payload = Mask().encode(np.ones(D, np.uint8), Context(algorithm.wire.layout))
    head = Frame(Kind.UPDATE, algorithm.setup.run, 1, tag(Mask()), algorithm.wire.layout.digest)
    frame = replace(head, sections=((Section.VALUES, payload),), samples=1)
    with pytest.raises(DecodeError, match="sections values_shared"):
        method.read(state, 0, frames.write(frame))


# what a client refuses -----------------------------------------------------------------------------------------------


def test_a_client_refuses_a_server_with_other_frozen_weights():
    message = build("fedpm", seed=4).broadcast(build("fedpm", seed=4).init(), None)
    with pytest.raises(DecodeError, match="frozen weights made here are not those of the sender"):
        build("fedpm", seed=3).receive(message, None, None)
    with pytest.raises(DecodeError, match="frozen weights"):
        build("fedpm", seed=4, options={"gain": 1.0}).receive(message, None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": 1}, "of run 00000001"),
        ({"kind": Kind.UPDATE}, "kind update, expected keyframe or step"),
        ({"codec": 5}, "codec tag 00000005"),
        ({"layout": bytes(8)}, "differ in model"),
        ({"sections": ()}, "0 sections seed"),
        ({"sections": ((Section.SEED, b"short"),)}, "seed section of 5 bytes"),
    ],
)
def test_a_client_refuses_a_wrong_broadcast(change, reason):
    method = build("fedpm")
    message = frames.write(replace(frames.read(method.broadcast(method.init(), None)), **change))
    with pytest.raises(DecodeError, match=reason):
        method.receive(message, None, None)


def test_torchs_own_generator_is_left_as_it_was():
    torch.manual_seed(8)
    before = torch.random.get_rng_state()
    build("fedpm").init()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("fraction", "clients", "size"), [(1.0, 7, 7), (0.1, 7, 1), (0.5, 7, 4), (0.01, 5, 1)])
def test_a_cohort_is_a_sorted_draw_without_replacement(fraction, clients, size):
    drawn = sample_cohort(fraction, clients, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == size
    assert drawn == sorted(drawn)
    assert set(drawn) <= set(range(clients))
