"""SSFL: the saliency round, the mask on the wire, weights that stay 0, late clients, what is refused."""

import struct
import warnings
from zlib import crc32

import numpy as np
import pytest
import torch
from toyworld import Spy, World, blobs, build, lines, model_bytes, run

from thinwire import frame as frames
from thinwire import train as training
from thinwire.codecs import Context, Float32, LogScale, Mask, tag
from thinwire.errors import ConfigError, DecodeError, NeedKeyframe, TrainingError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import Data, Update, selection
from thinwire.methods.sparse import move
from thinwire.runtime.inspection import inspect
from thinwire.runtime.run import resume, start

N, W = 53, 45  # entries of two_layers, and those that are weights
SELECTIONS = ["saliency", "random", "layerwise", "magnitude"]
HALF = {"density": 0.5}


def algorithm_of(method):
    return method.init.__self__


def full(state):
    """The server's weights with zeros outside the mask."""
    return move(state.weights, state.mask, np.ones_like(state.mask))


# the rounds ----------------------------------------------------------------------------------------------------------


def test_the_saliency_round_then_values_without_positions():
    world = World("ssfl", method=HALF)
    first, second, third = world.play(), world.play(), world.play()
    state, head = world.progress.server, 37 + 6
    kept = int(state.mask.sum())
    assert kept == 23 + 8  # ⌊.5 · 45 + ½⌋ weights, all biases
    assert first.down_bytes == 4 * (4 + head + 16)  # the seed
    mask = algorithm_of(world.method).write_mask(state.mask)
    assert second.down_bytes == 4 * (4 + head + len(mask))
    assert second.up_bytes == third.up_bytes == 4 * (head + 4 * kept)
    assert third.down_bytes == 4 * (4 + head + 4 * kept)
    assert third.dropped == []


@pytest.mark.parametrize("name", ["random", "layerwise", "magnitude"])
def test_a_mask_that_both_ends_make_costs_no_round_and_no_byte(name):
    world = World("ssfl", method={"selection": name, **HALF})
    entry = world.play()
    kept = int(world.progress.server.mask.sum())
    assert entry.down_bytes == 4 * (4 + 43 + 16)
    assert entry.up_bytes == 4 * (43 + 4 * kept)
    keyframe = frames.read(world.method.broadcast(world.progress.server, None))
    assert [sort for sort, _ in keyframe.sections] == [Section.VALUES]
    assert world.method.receive(frames.write(keyframe), None, None).value.mask.sum() == kept


def test_the_selections_choose_as_they_say():
    masks = {name: algorithm_of(build("ssfl", options={"selection": name, **HALF})) for name in SELECTIONS[1:]}
    found = {name: made.known(0) for name, made in masks.items()}
    made = masks["magnitude"]
    magnitudes = np.abs(made.start[made.places])
    assert (
        magnitudes[found["magnitude"][made.places] == 1].min() >= magnitudes[found["magnitude"][made.places] == 0].max()
    )
    assert [int(found["layerwise"][e.slice].sum()) for e in made.flat.layout] == [15, 5, 8, 3]
    assert int(found["random"].sum()) == 31
    other = algorithm_of(build("ssfl", options={"selection": "random", **HALF}, seed=4)).known(0)
    assert (other != found["random"]).any()


def test_biases_norms_and_buffers_stay_dense():
    for model in ("grouped", "batch_norm"):
        world = World("ssfl", model={"build": f"toyworld:{model}"}, method=HALF)
        for _ in range(3):
            world.play()
        layout, mask = algorithm_of(world.method).flat.layout, world.progress.server.mask
        for entry in layout:
            assert mask[entry.slice].all() == (entry.role != "weight")


@pytest.mark.parametrize(
    "local",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
        {"epochs": 3},
    ],
)
@pytest.mark.parametrize("name", SELECTIONS)
def test_weights_outside_the_mask_are_0_after_every_step(monkeypatch, name, local):
    world = World("ssfl", method={"selection": name, "density": 0.3, "fine_tune": 1}, local=local)
    if name == "saliency":
        world.play()
    outside = torch.from_numpy(world.progress.server.mask == 0)
    real, steps = training.optimizer, []

    def watched(trained, *rest):
        step = real(trained, *rest)

        def checked():
            step()
            steps.append(int(torch.count_nonzero(trained.detach()[outside])))

        return checked

    monkeypatch.setattr(training, "optimizer", watched)
    for _ in range(2):
        world.play()
    held = world.method.receive(world.method.broadcast(world.progress.server, None), None, None)
    world.method.evaluate(held, {}, world.assembly.client_data(0))
    assert len(steps) > 8
    assert not any(steps)
    flat = torch.cat([p.reshape(-1) for p in world.method.model(world.progress.server).parameters()])
    assert not flat[outside].any()
    assert flat[~outside].count_nonzero() > 10


UPLINKS = {
    "float32": {"id": "float32"},
    "stc": {"id": "stc", "keep": 0.3, "error_feedback": True},
    "m22": {"id": "m22", "keep": 0.5, "error_feedback": True},
    "eden": {"id": "eden", "bits": 2.0},
    "bfloat16": {"id": "bfloat16", "error_feedback": True},
}


@pytest.mark.parametrize("uplink", UPLINKS)
@pytest.mark.parametrize("downlink", ["float32", "float16"])
def test_any_codec_on_the_kept_coordinates(uplink, downlink):
    world = World(
        "ssfl", uplink=UPLINKS[uplink], downlink={"id": downlink}, method={**HALF, "reselect": [4]},
        data={"clients": 6}, cohort={"fraction": 0.5},
    )  # fmt: skip
    entries = [world.play() for _ in range(7)]
    assert not any(entry.dropped for entry in entries)
    kept = int(world.progress.server.mask.sum())
    for client, record in world.progress.records.items():
        if UPLINKS[uplink].get("error_feedback") and record.pending_version in (1, 2, 4, 5, 6):
            from thinwire.runtime.state import arrays_from_bytes

            state = arrays_from_bytes(record.pending)
            assert state["residual"].shape == (kept,), client
    world.side.sync(world.method.broadcast(world.progress.server, world.side.replica.version))
    np.testing.assert_array_equal(world.side.replica.value.weights, world.progress.server.weights)


def test_a_residual_of_another_mask_is_not_used():
    method = build("ssfl", options={"selection": "random", **HALF}, error_feedback=True)
    held = method.receive(method.broadcast(method.init(), None), None, None)
    data = Data(0, *blobs()[0])
    digest = np.frombuffer(algorithm_of(method).over(held.value.mask).flat.layout.digest, np.uint8)
    size = int(held.value.mask.sum())
    plain = method.train(held, {}, data)[0]
    carried = np.full(size, 0.5, np.float32)
    assert method.train(held, {"residual": carried, "layout": digest + np.uint8(1)}, data)[0] == plain
    assert method.train(held, {"residual": np.zeros(N, np.float32)}, data)[0] == plain
    assert method.train(held, {"residual": carried, "layout": digest}, data)[0] != plain


@pytest.mark.parametrize("optimizer", ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "majority"])
def test_server_optimisers_work_on_the_kept_coordinates(optimizer):
    world = World("ssfl", server={"optimizer": optimizer}, method={"density": 0.3, "warm_start": 1, "reselect": [4]})
    for _ in range(6):
        assert not world.play().dropped
        state = world.progress.server
        assert all(array.shape == state.weights.shape for array in state.memory)


# warm start and re-selection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_warm_start_trains_all_weights_first(name):
    world = World("ssfl", method={"selection": name, "density": 0.3, "warm_start": 2})
    plain = World("fedavg")
    for _ in range(1):
        world.play(), plain.play()
    np.testing.assert_array_equal(world.progress.server.weights, plain.progress.server.weights)
    assert world.progress.server.mask.all()
    for _ in range(2):
        world.play(), plain.play()
    mask = world.progress.server.mask
    assert int(mask.sum()) == 14 + 8
    late = world.method.receive(world.method.broadcast(world.progress.server, None), None, None)
    np.testing.assert_array_equal(late.value.mask, mask)
    assert not world.play().dropped


def test_reselection_lets_weights_come_back_at_0():
    world = World("ssfl", method={"density": 0.3, "reselect": [3]})
    world.play(), world.play()
    before = world.progress.server
    entry = world.play()
    after = world.progress.server
    back = (after.mask == 1) & (before.mask == 0)
    stayed = (after.mask == 1) & (before.mask == 1)
    assert back.any()
    assert after.mask.sum() == before.mask.sum()
    assert not full(after)[back].any()
    np.testing.assert_array_equal(full(after)[stayed], full(before)[stayed])
    assert not entry.dropped
    world.play(), world.play()
    assert full(world.progress.server)[back].astype(bool).mean() > 0.5


# late, lost and restarted clients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_client_ends_with_the_servers_weights_whatever_it_held(name):
    world = World("ssfl", method={"selection": name, "density": 0.3, "warm_start": 1}, downlink={"id": "float16"})
    method, seen = world.method, {}
    for _ in range(6):
        state = world.progress.server
        for held in [None, *seen.values()]:
            have = held.version if held else None
            now = method.receive(method.broadcast(state, have), held, have)
            assert now.version == state.history.version
            assert now.value.weights.tobytes() == state.weights.tobytes()
            assert now.value.mask.tobytes() == state.mask.tobytes()
        seen[state.history.version] = now
        world.play()


@pytest.mark.parametrize("send_initial", [False, True])
def test_a_late_and_a_restarted_client_get_the_mask_in_their_keyframe(send_initial):
    """As a step behind the seed; where the weights are sent, beside those that it keeps."""
    method = {**HALF, "saliency_fraction": 0.25, "send_initial": send_initial}
    world = World(
        "ssfl", method=method, uplink=UPLINKS["bfloat16"], spy=lambda pool: Spy(pool),
        data={"clients": 4},
    )  # fmt: skip
    world.play()
    (asked,) = world.progress.have
    world.play()
    kinds = {client: frames.read(message) for client, message in world.pool.messages.items()}
    for client, frame in kinds.items():
        assert frame.kind == (Kind.STEP if client == asked else Kind.KEYFRAME)
        assert bool(frame.all(Section.MASK)) == (client != asked and send_initial)
    del world.progress.records.entries[asked]  # it lost all that it had
    world.play()
    answer = next(a for a in world.pool.answered[::-1] if a.client == asked)
    assert answer.status == "done"
    assert not world.play().dropped


def test_a_client_of_before_the_mask_catches_up_by_steps():
    world = World("ssfl", method={"density": 0.3}, downlink={"id": "float16"})
    method, state = world.method, world.progress.server
    held = method.receive(method.broadcast(state, None), None, None)
    for _ in range(2):
        world.play()
    message = method.broadcast(world.progress.server, 0)
    assert frames.read(message).kind == Kind.STEP
    now = method.receive(message, held, 0)
    assert now.value.weights.tobytes() == world.progress.server.weights.tobytes()


# runs ----------------------------------------------------------------------------------------------------------------

CASES = {
    "plain": {},
    "feedback": {"uplink": UPLINKS["stc"], "downlink": {"id": "float16"}, "cohort": {"fraction": 0.5}},
    "reselect": {"method": {"density": 0.3, "warm_start": 1, "reselect": [4]}, "server": {"optimizer": "fedadam"}},
    "random": {"method": {"selection": "random"}},
}


class Stop(Exception):
    pass


def stop_after(rounds):
    def on_round(entry, of):
        if entry.round == rounds:
            raise Stop

    return on_round


@pytest.mark.parametrize("case", CASES)
def test_workers_and_interruptions_change_nothing(tmp_path, case):
    run(tmp_path / "whole", "ssfl", rounds=5, **CASES[case])
    run(tmp_path / "workers", "ssfl", rounds=5, workers=2, **CASES[case])
    for stopped in (1, 3):
        with pytest.raises(Stop):
            run(tmp_path / str(stopped), "ssfl", rounds=5, on_round=stop_after(stopped), **CASES[case])
        resume(tmp_path / str(stopped), workers=2)
    for other in ("workers", "1", "3"):
        assert lines(tmp_path / "whole") == lines(tmp_path / other)
        assert model_bytes(tmp_path / "whole") == model_bytes(tmp_path / other)


def test_inspect_opens_every_frame_and_shows_the_density(tmp_path):
    from toyworld import experiment

    seen = set()
    for rounds in (1, 2, 3):
        out = tmp_path / str(rounds)
        settings = {"method": {"density": 0.3}, "cohort": {"fraction": 0.5}, "rounds": rounds}
        start(experiment("ssfl", **settings), out, workers=1, save_frames=True)
        for path in (out / "frames").glob("*.tw"):
            shown = inspect(path)
            assert all("not opened" not in row[-1] for row in shown.rows)
            assert int(shown.rows[-1][1].replace(",", "")) == path.stat().st_size
            seen |= {row[0].strip() for row in shown.rows}
            assert "first.weight: " in shown.hint
            assert "first.bias: 100.0 % (5 of 5)" in shown.hint
    assert {"saliency", "labels", "range", "mask", "ones per class", "values", "step"} <= seen
    assert "all: 41.5 % (22 of 53)" in shown.hint
    model = inspect(tmp_path / "3" / "model.safetensors")
    assert any("density" in row[-1] for row in model.rows)


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"method\.density = 0\.0: above 0, at most 1"),
        ({"density": 1.5}, r"method\.density = 1\.5"),
        ({"density": -0.1}, r"method\.density"),
        ({"density": float("nan")}, r"method\.density"),
        ({"selection": "best"}, "one of saliency, random, layerwise, magnitude"),
        ({"saliency_fraction": 0.0}, r"method\.saliency_fraction"),
        ({"saliency_batches": 0}, r"method\.saliency_batches"),
        ({"saliency_bits": 3}, "4 to 8, or 32"),
        ({"saliency_bits": 16}, "4 to 8, or 32"),
        ({"floor": 0.2}, r"method\.floor = 0\.2: 0 \(off\) to the density"),
        ({"floor": -0.1}, r"method\.floor"),
        ({"reselect": [1]}, "rounds after round 1"),
        ({"reselect": ["2"]}, r"method\.reselect"),
        ({"warm_start": -1}, r"method\.warm_start"),
        ({"reselect": [5], "selection": "random"}, "only saliencies are worth another look"),
        ({"nonsense": 1}, "unknown field"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        build("ssfl", options=options)


def test_parameterisations_and_models_without_weights_are_refused():
    from thinwire.parameterisations import FedPara

    with pytest.raises(ConfigError, match="dense for ssfl: it masks weights"):
        build("ssfl", parameterisation=FedPara())
    with pytest.raises(ConfigError, match="a tensor of two axes or more"):
        build("ssfl", lambda: torch.nn.LayerNorm(6))


def lopsided():
    """A first layer whose weights matter a thousand times more."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
    with torch.no_grad():
        model[0].weight.mul_(1000)
        model[1].weight.mul_(1e-3)
    return model


def scores(method, state, value):
    algorithm = algorithm_of(method)
    return [Update(5, np.where(np.arange(W) < 30, 1.0, value).astype(np.float32))], algorithm


@pytest.mark.parametrize("strict", [False, True])
def test_a_layer_that_vanishes_is_named(strict):
    method = build("ssfl", options={**HALF, "strict": strict})
    updates, _ = scores(method, method.init(), 0.1)
    if strict:
        with pytest.raises(TrainingError, match=r"round 1: density 0\.5: nothing is left of second\.weight; set"):
            method.merge(method.init(), updates)
    else:
        with pytest.warns(UserWarning, match=r"nothing is left of second\.weight") as caught:
            method.merge(method.init(), updates)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        floored = build("ssfl", options={**HALF, "strict": strict, "floor": 0.2})
        state = floored.merge(floored.init(), updates)
    assert [int(state.mask[e.slice].sum()) for e in algorithm_of(floored).flat.layout] == [20, 5, 3, 3]


def test_a_layer_that_vanishes_is_named_before_the_run_where_the_mask_is_known():
    options = {"selection": "magnitude", "density": 0.2}
    with pytest.warns(UserWarning, match=r"density 0\.2: nothing is left of 1\.weight") as caught:
        build("ssfl", lopsided, options=options).init()
    assert len(caught) == 1
    with pytest.raises(ConfigError, match=r"nothing is left of 1\.weight"):
        build("ssfl", lopsided, options={**options, "strict": True})
    build("ssfl", lopsided, options={**options, "strict": True, "floor": 0.1})


def test_ties_go_to_the_lower_index():
    layout = selection.weights_of(algorithm_of(build("ssfl")).flat.layout)
    chosen = selection.select(np.ones(W, np.float32), layout, 0.2)
    assert np.flatnonzero(chosen).tolist() == list(range(9))
    chosen = selection.select(np.ones(W, np.float32), layout, 0.2, floor=0.2)
    assert np.flatnonzero(chosen).tolist() == [*range(6), 30, 31, 32]
    for density in (0.01, 0.33, 0.5, 0.999, 1.0):
        for floor in (0.0, 0.01):
            draw = np.random.default_rng(0).random(W).astype(np.float32)
            kept = selection.select(draw, layout, density, floor).sum()
            assert kept == selection.count(layout, density, floor)


# a bad client --------------------------------------------------------------------------------------------------------


def spoil(clients, how):
    def change(pool):
        real = pool.clients.method.train

        def train(held, state, data):
            if data.client in clients:
                return how(real, held, state, data)
            return real(held, state, data)

        from dataclasses import replace

        pool.clients.method = replace(pool.clients.method, train=train)
        return pool

    return change


def infinite(real, held, state, data):
    return real(held, state, Data(data.client, data.x * np.float32(np.inf), data.y))


def nan_frame(real, held, state, data):
    message, state, metrics = real(held, state, data)
    frame = frames.read(message)
    payload = np.full(W, np.nan, "<f4").tobytes()
    return frames.write(Frame(**{**vars(frame), "sections": ((Section.SALIENCY, payload),)})), state, metrics


def other_layout(real, held, state, data):
    message, state, metrics = real(held, state, data)
    return frames.write(Frame(**{**vars(frames.read(message)), "layout": b"other!!!"})), state, metrics


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (infinite, "saliency of first.weight: NaN or infinite"),
        (nan_frame, "saliency: holds NaN or infinite entries"),
        (other_layout, "the two ends differ in model"),
    ],
)
def test_a_client_whose_saliency_cannot_be_used_is_dropped_by_name(how, reason):
    world = World("ssfl", spy=spoil([2], how), method={**HALF, "saliency_bits": 32})
    entry = world.play()
    assert [drop["client"] for drop in entry.dropped] == [2]
    assert reason in entry.dropped[0]["reason"]
    assert entry.clients == 3
    world = World("ssfl", spy=spoil([0, 1, 2, 3], how), method={**HALF, "saliency_bits": 32})
    with pytest.raises(TrainingError, match=r"round 1: no saliency is left \(client 0: .*client 2"):
        world.play()


@pytest.fixture(scope="module")
def honest():
    """A method after its saliency round: frames of every sort with the state and version that they are for."""
    method = build("ssfl", options=HALF)
    first = method.init()
    data = [Data(c, *blobs(seed=c + 1)[0]) for c in range(2)]
    held = method.receive(method.broadcast(first, None), None, None)
    saliencies = [method.train(held, {}, d)[0] for d in data]
    second = method.merge(first, [method.read(first, c, s) for c, s in enumerate(saliencies)])
    masked = method.receive(method.broadcast(second, 0), held, 0)
    update = method.train(masked, {}, data[0])[0]
    third = method.merge(second, [method.read(second, 0, update)])
    return method, (first, second, third), held, masked, saliencies[0], update


def refused(call, *arguments):
    try:
        return call(*arguments)
    except (DecodeError, NeedKeyframe):
        return None


def mutations(data, count, seed):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        body = bytearray(data[:-4])
        for _ in range(int(draw.integers(1, 4))):
            body[int(draw.integers(len(body)))] = int(draw.integers(256))
        if draw.random() < 0.2:
            body = body[: int(draw.integers(len(body)))]
        yield bytes(body) + struct.pack("<I", crc32(bytes(body)))


def test_hostile_frames(honest):
    method, (first, second, third), held, masked, saliency, update = honest
    kept = int(second.mask.sum())
    for state, message, size in ((first, saliency, W), (second, update, kept)):
        for data in mutations(message, 400, seed=1):
            if (read := refused(method.read, state, 0, data)) is not None:
                assert read.value.shape == (size,)
                assert np.isfinite(read.value).all()
    for have, value, state in ((0, held, second), (None, None, second), (1, masked, third), (None, None, third)):
        for data in mutations(method.broadcast(state, have), 400, seed=2):
            if (now := refused(method.receive, data, value, have)) is not None and now.version:
                assert now.value.mask.sum() == kept
                assert np.isfinite(now.value.weights).all()


def test_frames_of_another_phase_are_refused_by_name(honest):
    method, (first, second, _), held, _, saliency, update = honest
    for state, message in ((first, update), (second, saliency)):
        with pytest.raises(DecodeError, match="of round"):
            method.read(state, 0, message)
    early = frames.write(Frame(**{**vars(frames.read(saliency)), "round": 1, "codec": tag(Float32())}))
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        method.read(second, 0, early)
    with pytest.raises(DecodeError, match="codec tag"):
        method.read(first, 0, frames.write(Frame(**{**vars(frames.read(saliency)), "codec": tag(LogScale())})))
    wrong = frames.read(method.broadcast(second, None))
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        method.receive(frames.write(Frame(**{**vars(wrong), "layout": b"other!!!"})), None, None)
    step = frames.read(method.broadcast(second, 0))
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        method.receive(frames.write(Frame(**{**vars(step), "layout": b"other!!!"})), held, 0)


def test_a_mask_of_another_density_is_refused(honest):
    method, (_, second, _), held, *_ = honest
    algorithm = algorithm_of(method)
    chosen = np.zeros(W, np.uint8)
    chosen[:22] = 1
    payload = Mask().encode(chosen, Context(algorithm.weights))
    step = frames.read(method.broadcast(second, 0))
    with pytest.raises(DecodeError, match="mask: keeps 22 weights, 23 expected"):
        method.receive(frames.write(Frame(**{**vars(step), "sections": ((Section.STEP, payload),)})), held, 0)


def test_negative_saliencies_are_refused():
    method = build("ssfl", options={**HALF, "saliency_bits": 32})
    state = method.init()
    held = method.receive(method.broadcast(state, None), None, None)
    frame = frames.read(method.train(held, {}, Data(0, *blobs()[0]))[0])
    payload = np.full(W, -1.0, "<f4").tobytes()
    with pytest.raises(DecodeError, match="saliency: holds negative entries"):
        method.read(state, 0, frames.write(Frame(**{**vars(frame), "sections": ((Section.SALIENCY, payload),)})))


def test_two_ends_of_other_settings_do_not_understand_each_other():
    ours, theirs = (build("ssfl", options={"selection": name, **HALF}) for name in ("random", "layerwise"))
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        ours.receive(theirs.broadcast(theirs.init(), None), None, None)
