"""FedAvg: codecs both ways, residuals at both ends, buffers, tied weights, what the server refuses to read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toyworld import Tied, World, batch_norm, blobs, build, two_layers, wide

from thinwire import frame as frames
from thinwire.codecs import BFloat16, Context, Float16, Float32, LogScale, Mask, tag
from thinwire.errors import ConfigError, DecodeError, TrainingError
from thinwire.frame import Kind, Section
from thinwire.methods import Data, Update
from thinwire.runtime.client import NEVER, Clients, Record
from thinwire.runtime.round import requested
from thinwire.tensors import FlatModel
from thinwire.versions import SPELT_OUT

CODECS = ["float32", "float16", "bfloat16"]
P = 5 * 6 + 5 + 3 * 5 + 3


def follow(world, client, rounds):
    """A client of its own, which decodes every broadcast itself and is compared with the server after each."""
    method, held = world.method, None
    for _ in range(rounds):
        state = world.progress.server
        have = held.version if held else None
        held = method.receive(method.broadcast(state, have), held, have)
        assert held.version == state.history.version
        assert held.value.weights.tobytes() == state.weights.tobytes()
        world.play()
    return held


@pytest.mark.parametrize("downlink", CODECS)
@pytest.mark.parametrize("uplink", CODECS)
def test_server_and_client_hold_the_same_weights_bit_for_bit(uplink, downlink):
    world = World("fedavg", uplink={"id": uplink}, downlink={"id": downlink})
    held = follow(world, 0, rounds=4)
    assert held.value.change is not None
    np.testing.assert_array_equal(world.side.replica.value.weights, held.value.weights)


@pytest.mark.parametrize(("codec", "width"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_bytes_of_a_round(codec, width):
    world = World("fedavg", uplink={"id": codec}, downlink={"id": codec})
    first, second = world.play(), world.play()
    head = 37 + 6
    assert first.up_bytes == second.up_bytes == 4 * (head + width * P)
    assert first.down_bytes == 4 * (4 + head + 16)  # the seed of the initial weights, and their digest
    assert second.down_bytes == 4 * (4 + head + width * P)
    assert second.up_bpp == pytest.approx(8 * (head + width * P) / P)
    assert second.up_bpp_marginal is None


def test_the_servers_residual_makes_good_what_the_downlink_lost():
    method = build("fedavg", downlink=BFloat16())
    state = method.init()
    start, total = state.weights.astype(np.float64), np.zeros(P)
    rng = np.random.default_rng(0)
    for _ in range(30):
        change = rng.normal(0.01, 0.01, P).astype(np.float32)
        total += change
        before = state.residual
        state = method.merge(state, [Update(5, change)])
        np.testing.assert_array_equal(state.residual, (change + before) - state.change)
    assert np.abs(state.residual).max() > 0
    error = np.abs(state.weights - (start + total))
    # what is missing is the last residual, not the sum of 30 roundings
    np.testing.assert_allclose(state.weights + state.residual, start + total, atol=2e-6)
    assert error.max() < 2 * np.abs(state.change).max() * 2**-8


def test_a_lossless_downlink_leaves_no_residual():
    world = World("fedavg")
    world.play()
    assert not world.progress.server.residual.any()


def test_merge_weighs_by_samples_and_needs_updates():
    method = build("fedavg")
    state = method.init()
    ones = np.ones(P, np.float32)
    merged = method.merge(state, iter([Update(1, ones), Update(3, 5 * ones)]))
    np.testing.assert_allclose(merged.weights, state.weights + 4, rtol=1e-6)
    with pytest.raises(TrainingError, match="no update is left"):
        method.merge(state, [])


# error feedback ------------------------------------------------------------------------------------------------------


def trained(method, state, residual, client=0):
    """A client's answer to a first broadcast."""
    held = method.receive(method.broadcast(state, None), None, None)
    (x, y), _ = blobs()
    return method.train(held, residual, Data(client, x, y))


@pytest.mark.parametrize("share", [True, 0.7])
def test_the_residual_is_what_the_frame_lost(share):
    method = build("fedavg", uplink=BFloat16(), error_feedback=share)
    state, carried = method.init(), np.random.default_rng(0).normal(0, 0.01, P).astype(np.float32)
    message, pending, _ = trained(method, state, {"residual": carried})
    exact = build("fedavg", uplink=Float32())
    plain, _, _ = trained(exact, exact.init(), {})
    context = Context(method.init.__self__.flat.layout)
    wanted = exact.read(exact.init(), 0, plain).value + np.float32(share) * carried
    sent = BFloat16().decode(frames.read(message).one(Section.VALUES), context)
    np.testing.assert_array_equal(pending["residual"], wanted - sent)
    np.testing.assert_array_equal(method.read(state, 0, message).value, sent)
    assert np.abs(pending["residual"]).max() > 0


def test_without_feedback_a_client_keeps_nothing():
    method = build("fedavg", uplink=Float16())
    assert method.client_init(0) == {}
    _, pending, _ = trained(method, method.init(), {})
    assert pending == {}


def test_with_feedback_a_client_begins_with_zeros():
    residual = build("fedavg", error_feedback=True).client_init(3)["residual"]
    assert residual.dtype == np.float32
    assert residual.shape == (P,)
    assert not residual.any()


# buffers, tied weights, types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "tensor"),
    [(torch.float64, "first.weight"), (torch.float16, "first.weight"), (torch.bfloat16, "first.weight")],
)
@pytest.mark.parametrize("method", ["fedavg", "fedpm"])
def test_parameters_of_another_type_are_refused_by_name(method, change, tensor):
    with pytest.raises(
        ConfigError, match=rf"model tensor {tensor} = 'torch\.{str(change)[6:]}': float32 for trained par"
    ):
        build(method, lambda: two_layers().to(change))


def test_a_double_layer_beside_single_ones_is_refused_by_its_own_name():
    def mixed():
        return torch.nn.Sequential(two_layers(), wide())

    with pytest.raises(ConfigError, match=r"model tensor 1\.weight"):
        build("fedavg", mixed)


def test_tied_weights_travel_once_and_stay_tied():
    world = World("fedavg", model={"build": "toyworld:tied"})
    world.play()
    size = 36 + 6 + 6
    assert world.method.parameters == size
    assert world.progress.server.weights.size == size
    model = world.method.model(world.progress.server)
    assert model.first.weight is model.second.weight
    assert not torch.equal(model.first.weight, Tied().first.weight)


def test_a_flat_model_reads_what_was_written():
    flat = FlatModel(batch_norm())
    assert {entry.role for entry in flat.layout} == {"weight", "bias", "norm"}  # buffers are none of them
    vector = np.random.default_rng(0).normal(size=flat.layout.size).astype(np.float32)
    flat.write(vector)
    np.testing.assert_array_equal(flat.read(), vector)
    assert flat.model[0].weight.data_ptr() == flat.parameters.data_ptr()


# settings and refusals -----------------------------------------------------------------------------------------------


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match=r"method\.epsilon = 0\.1: unknown field, known: send_initial"):
        build("fedavg", options={"epsilon": 0.1})


def test_initial_weights_travel_as_a_seed_or_in_full_on_request():
    seed, full = build("fedavg"), build("fedavg", options={"send_initial": True})
    short, long = seed.broadcast(seed.init(), None), full.broadcast(full.init(), None)
    assert (len(short), len(long)) == (37 + 6 + 16, 37 + 6 + 4 * P)
    held = [method.receive(message, None, None) for method, message in ((seed, short), (full, long))]
    np.testing.assert_array_equal(held[0].value.weights, held[1].value.weights)
    np.testing.assert_array_equal(held[0].value.weights, seed.init().weights)


def test_initial_weights_of_another_seed_are_refused():
    ours, theirs = build("fedavg", seed=1), build("fedavg", seed=2)
    with pytest.raises(DecodeError, match="of another seed than this run's"):
        ours.receive(theirs.broadcast(theirs.init(), None), None, None)


def test_a_client_whose_seed_makes_other_weights_asks_for_their_values():
    world, elsewhere = World("fedavg"), World("fedavg")
    algorithm = elsewhere.method.init.__self__
    algorithm.start[0] += 1  # as on a processor that initialises otherwise
    state, clients = world.progress.server, Clients(elsewhere.method, elsewhere.assembly.client_data, 0)
    answer = clients.answer(0, Record(), NEVER, world.method.broadcast(state, None))
    assert answer.status == "keyframe"
    have = requested(answer.frame)
    assert have == SPELT_OUT
    spelt_out = world.method.broadcast(state, have)
    held = elsewhere.method.receive(spelt_out, None, None)
    np.testing.assert_array_equal(held.value.weights, state.weights)
    assert clients.answer(0, Record(), NEVER, spelt_out).status == "done"


@pytest.mark.parametrize("side", ["uplink", "downlink"])
def test_a_mask_codec_is_refused(side):
    with pytest.raises(ConfigError, match=f"{side} = 'mask': a codec for float32 arrays, float32 for example"):
        build("fedavg", **{side: Mask()})


@pytest.mark.parametrize("side", ["uplink", "downlink"])
def test_a_codec_that_loses_signs_is_refused(side):
    with pytest.raises(ConfigError, match=f"{side} = 'logscale': a codec for updates, thin, .* is for magnitudes"):
        build("fedavg", **{side: LogScale()})


@pytest.fixture(scope="module")
def round_one():
    method = build("fedavg")
    state = method.init()
    message, _, _ = trained(method, state, {})
    return method, state, message


def values(array):
    return ((Section.VALUES, np.asarray(array, "<f4").tobytes()),)


def with_entry(value):
    array = np.zeros(P, np.float32)
    array[7] = value
    return values(array)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": 8}, "of run 00000008, this is run "),
        ({"kind": Kind.MODEL}, "kind model, expected update"),
        ({"round": 1}, "of round 1, this is round 0"),
        ({"codec": tag(Float16())}, "codec tag"),
        ({"layout": b"8 bytes!"}, "the two ends differ in model"),
        ({"samples": 0}, "update: 0 samples"),
        ({"sections": ()}, "0 sections, values alone expected"),
        ({"sections": values(np.zeros(P)) * 2}, "2 sections, values alone expected"),
        ({"sections": values(np.zeros(P - 1))}, f"dense: {4 * P - 4} bytes for {P} entries, expected {4 * P}"),
        ({"sections": with_entry(np.nan)}, "holds NaN or infinite entries"),
        ({"sections": with_entry(-np.inf)}, "holds NaN or infinite entries"),
        ({"sections": with_entry(-3e7)}, r"update: an entry of 3e\+07, at most 1\.68e\+07 allowed"),
    ],
)
def test_a_wrong_frame_is_refused_by_its_own_reason(round_one, change, reason):
    method, state, message = round_one
    with pytest.raises(DecodeError, match=reason):
        method.read(state, 0, frames.write(replace(frames.read(message), **change)))


def test_a_good_frame_is_read(round_one):
    method, state, message = round_one
    update = method.read(state, 0, message)
    assert update.samples == 60
    assert update.marginal_bits is None
    assert np.abs(update.value).max() > 0


def test_a_frame_that_claims_a_shared_array_is_read_like_any_other(round_one):
    # float32 makes no use of the array; that there is none yet must not matter
    method, state, message = round_one
    (_, payload), *_ = frames.read(message).sections
    shared = replace(frames.read(message), sections=((Section.VALUES_SHARED, payload),))
    np.testing.assert_array_equal(
        method.read(state, 0, frames.write(shared)).value, method.read(state, 0, message).value
    )


def test_the_initial_weights_follow_the_seed():
    first, same, other = (build("fedavg", seed=seed).init().weights for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_client_evaluates_the_servers_model():
    world = World("fedavg")
    world.play()
    state, test = world.progress.server, world.assembly.dataset.test
    held = world.method.receive(world.method.broadcast(state, None), None, None)
    ours = world.assembly.evaluate(world.method.model(state))
    assert world.method.evaluate(held, {}, Data(0, test.x, test.y)) == ours
