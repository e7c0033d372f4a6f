"""Masks of the clients' own, DisPFL, SparsyFed, local top-k: what travels, what is averaged, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toyworld import World, blobs, build, lines, model_bytes, run

from thinwire import frame as frames
from thinwire.codecs import Mask
from thinwire.errors import ConfigError, DecodeError, TrainingError
from thinwire.frame import Section
from thinwire.methods import PRESETS, Data
from thinwire.methods.clientmasks import SparseUpdate
from thinwire.methods.sparsyfed import Powers
from thinwire.models import build as model_of
from thinwire.parameterisations import FedPara
from thinwire.runtime.experiment import parse
from thinwire.tensors import FlatModel

N, W = 53, 45
OWN = ["client-masks", "dispfl", "sparsyfed"]
HALF = {"density": 0.5}
UPLINKS = [{"id": "m22", "keep": 0.5}, {"id": "stc", "keep": 0.3}, {"id": "eden", "bits": 2.0}]


def algorithm_of(method):
    return method.init.__self__


def answer(method, state, client=0, own=None):
    held = method.receive(method.broadcast(state, None), None, None)
    return method.train(held, own or {}, Data(client, *blobs(seed=client + 1)[0]))


@pytest.mark.parametrize("name", OWN)
def test_it_learns_and_the_same_whatever_the_workers(tmp_path, name):
    settings = {"method": HALF, "rounds": 4, "data": {"clients": 5}, "cohort": {"fraction": 0.6}}
    for workers in (1, 2):
        run(tmp_path / str(workers), name, workers=workers, **settings)
    assert lines(tmp_path / "1") == lines(tmp_path / "2")
    assert model_bytes(tmp_path / "1") == model_bytes(tmp_path / "2")
    played = lines(tmp_path / "1")
    assert played[-1]["train_loss"] < played[0]["train_loss"]
    assert not any(entry["dropped"] for entry in played)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("uplink", UPLINKS)
def test_any_codec_on_the_kept_coordinates(name, uplink):
    world = World(name, uplink=uplink, method=HALF, downlink={"id": "float16"})
    assert not any(world.play().dropped for _ in range(4))


def test_random_masks_of_clients_never_travel():
    method = build("client-masks", options=HALF)
    state, algorithm = method.init(), algorithm_of(method)
    masks = [algorithm.first(client) for client in range(3)]
    assert (masks[0] != masks[1]).any()
    for client, mask in enumerate(masks):
        message, _, _ = answer(method, state, client)
        assert len(message) == 43 + 4 * int(mask.sum())
        update = method.read(state, client, message)
        assert not update.value[mask == 0].any()
        assert update.value[mask == 1].any()
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        method.read(state, 0, message)


@pytest.mark.parametrize("name", ["client-masks", "dispfl"])
def test_a_coordinate_is_averaged_over_those_that_hold_it(name):
    method = build(name, options=HALF)
    state = method.init()
    masks = np.zeros((2, N), np.uint8)
    masks[0, :10], masks[1, 5:20] = 1, 1
    updates = [
        SparseUpdate(samples, value * mask.astype(np.float32), client=client, mask=mask)
        for client, (samples, value, mask) in enumerate(zip((1, 3), (1, 5), masks, strict=True))
    ]
    change = method.merge(state, updates).weights - state.weights
    expected = np.r_[np.full(5, 1.0), np.full(5, 4.0), np.full(10, 5.0), np.zeros(N - 20)]
    np.testing.assert_allclose(change, expected, atol=1e-6)
    with pytest.raises(TrainingError, match="no update is left"):
        method.merge(state, [])


def test_dispfl_moves_the_smallest_weights_to_the_steepest_slopes():
    method = build("dispfl", options={**HALF, "prune": 0.4, "anneal": 10})
    algorithm = algorithm_of(method)
    weights, slope = np.random.default_rng(0).normal(size=(2, W)).astype(np.float32)
    old = algorithm.first(0)[algorithm.places]
    new = algorithm.moved(weights, slope, old, version=0)
    for entry, moved in zip(algorithm.weights, (6, 3), strict=True):  # .4 of 15 and of 8 weights
        part = entry.slice
        lost, won = np.flatnonzero((old > new)[part]), np.flatnonzero((new > old)[part])
        assert len(lost) == len(won) == moved
        kept = np.flatnonzero(((old == 1) & (new == 1))[part])
        assert np.abs(weights[part][lost]).max() <= np.abs(weights[part][kept]).min()
        free = np.flatnonzero(((old == 0) & (new == 0))[part])
        assert np.abs(slope[part][won]).min() >= np.abs(slope[part][free]).max()
    assert (algorithm.moved(weights, slope, old, version=10) == old).all()


def test_dispfl_clients_and_server_keep_the_same_masks():
    method, own = build("dispfl", options=HALF), {}
    state, algorithm = method.init(), algorithm_of(method)
    for _ in range(3):
        updates = []
        for client in range(3):
            message, pending, _ = answer(method, state, client, own.get(client))
            updates.append(method.read(state, client, message))
            own[client] = pending
        state = method.merge(state, updates)
        for client in range(3):
            mask = algorithm.own(client, own[client])
            layout = algorithm.over(mask).flat.layout.digest
            np.testing.assert_array_equal(algorithm.known(state, client, layout), mask)
    message, _, _ = answer(method, state, 1)  # it lost its state and begins with its first mask
    assert method.read(state, 1, message).mask.tobytes() == algorithm.first(1).tobytes()
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        method.read(state, 1, answer(method, state, 2, own[2])[0])


def test_dispfl_refuses_a_mask_of_another_density():
    method = build("dispfl", options=HALF)
    state, algorithm = method.init(), algorithm_of(method)
    frame = frames.read(answer(method, state)[0])
    payload = Mask().encode(np.ones(W, np.uint8), algorithm._against(algorithm.first(0)))
    sections = tuple((sort, payload if sort == Section.MASK else data) for sort, data in frame.sections)
    with pytest.raises(DecodeError, match=r"mask: keeps 30 weights of first\.weight, 15 expected"):
        method.read(state, 0, frames.write(replace(frame, sections=sections)))


def test_sparsyfed_sends_the_largest_weights_and_says_that_the_others_are_0():
    method = build("sparsyfed", options={"density": 0.2})
    state, algorithm = method.init(), algorithm_of(method)
    update = method.read(state, 0, answer(method, state)[0])
    weights = (state.weights + update.value)[algorithm.places]
    assert np.count_nonzero(np.abs(weights) > 1e-7) == 9
    merged = method.merge(state, [update])
    assert np.abs(merged.weights[algorithm.places][np.abs(weights) < 1e-7]).max() < 1e-7


def test_sparsyfed_follows_the_gradient_of_its_parameters():
    flat = FlatModel(model_of("mlp", (1, 8, 8), 10))
    places = np.arange(flat.size) % 2 == 0
    powers = Powers(flat, places, 1.5)
    before = flat.read()
    powers.start()
    powers.push()
    np.testing.assert_allclose(flat.read(), before, rtol=1e-4, atol=1e-6)
    flat.gradient.copy_(torch.randn(flat.size))
    theta = powers.trained.clone().requires_grad_()
    exponents = torch.from_numpy(np.where(places, 1.5, 1.0).astype(np.float32))
    (theta.sign() * theta.abs().pow(exponents)).backward(flat.gradient)
    powers.pull()
    some = powers.trained != 0  # where there is a derivative
    torch.testing.assert_close(powers.trained.grad[some], theta.grad[some], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_hostile_sections_are_refused(name):
    method = build(name, options=HALF)
    state = method.init()
    frame = frames.read(answer(method, state)[0])
    for sections in ((), frame.sections * 2, ((Section.MASK, b"\xff" * 9), *frame.sections[1:])):
        with pytest.raises(DecodeError):
            method.read(state, 0, frames.write(replace(frame, sections=sections)))
    draw = np.random.default_rng(0)
    for _ in range(300):
        which = int(draw.integers(len(frame.sections)))
        body = bytearray(frame.sections[which][1])
        body[int(draw.integers(len(body)))] = int(draw.integers(256))
        sections = list(frame.sections)
        sections[which] = (sections[which][0], bytes(body))
        try:
            update = method.read(state, 0, frames.write(replace(frame, sections=tuple(sections))))
        except DecodeError:
            continue
        assert update.value.shape == (N,)
        assert np.isfinite(update.value).all()


WRONG = {"client-masks": [], "dispfl": [{"prune": 1.0}, {"anneal": 0}], "sparsyfed": [{"beta": 0.5}, {"fine_tune": 1}]}


@pytest.mark.parametrize("name", OWN)
def test_settings_that_do_not_combine(name):
    for options in ({"density": 0.0}, {"density": 1.01}, {"nonsense": 1}, *WRONG[name]):
        with pytest.raises(ConfigError, match=r"method\."):
            build(name, options=options)
    with pytest.raises(ConfigError, match=r"parameterisation\.name"):
        build(name, parameterisation=FedPara())
    if name != "client-masks":
        with pytest.raises(ConfigError, match=r"uplink\.error_feedback"):
            build(name, error_feedback=True)


def test_error_feedback_under_a_mask_of_ones_own():
    world = World("client-masks", uplink={"id": "stc", "keep": 0.3, "error_feedback": True}, method=HALF)
    assert not any(world.play().dropped for _ in range(3))


@pytest.mark.parametrize("name", ["random-mask", "layerwise-mask", "magnitude-mask", "local-topk"])
def test_presets(name):
    assert parse({"method": {"name": name}}).method["name"] == PRESETS[name]["method"]["name"]
    assert not World(name, method={"name": name}).play().dropped
