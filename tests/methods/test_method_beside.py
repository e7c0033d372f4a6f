"""Buffers and frozen parameters travel beside any method: exactly, or not at all."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toyworld import CLASSES, FEATURES, World, batch_norm, build

from thinwire import frame as frames
from thinwire.errors import ConfigError, DecodeError
from thinwire.frame import Section
from thinwire.methods import Data, aggregate

EVERY = [
    "fedavg", "fedprox", "scaffold", "feddyn", "fedper", "fedpm", "ssfl", "client-masks", "dispfl", "sparsyfed",
]  # fmt: skip


def normed(name, **settings):
    return World(name, model={"build": "toyworld:batch_norm"}, **settings)


def buffers(model):
    return dict(model.named_buffers())


def test_running_statistics_are_the_mean_by_samples_and_are_charged():
    world = normed("fedavg", data={"clients": 3, "partition": "dirichlet:1.0"})
    method, state = world.method, world.progress.server
    held = method.receive(method.broadcast(state, None), None, None)
    expected, samples, size = 0.0, 0, 0
    for client in world.clients:
        data = world.assembly.client_data(client)
        frame, _, _ = method.train(held, {}, data)
        payload = frames.read(frame).one(Section.BUFFERS)
        now = method.init.__self__.flat.buffers.patched(state.buffers, payload)
        expected = expected + len(data.y) * np.frombuffer(now[:32], np.float32).astype(np.float64)
        samples, size = samples + len(data.y), size + len(payload)
    entry = world.play()
    assert size == 3 * (1 + 4 * 4 + 4 * 4 + 8)  # a byte of flags, mean, variance, the counter
    assert entry.up_parts["buffers"] == size
    found = buffers(method.model(world.progress.server))
    both = torch.cat([found["1.running_mean"], found["1.running_var"]]).numpy()
    np.testing.assert_array_equal(both, (expected / samples).astype(np.float32))
    assert found["1.num_batches_tracked"].dtype == torch.int64
    assert found["1.num_batches_tracked"] > 0


@pytest.mark.parametrize("how", [
    {"server": {"optimizer": "fedavgm"}}, {"server": {"optimizer": "fedadam"}}, {"downlink": {"id": "terngrad"}},
    {"downlink": {"id": "count-sketch"}}, {"uplink": {"id": "stc", "keep": 0.05, "error_feedback": True}},
    {"server": {"aggregate": "median"}}, {"server": {"optimizer": "majority"}},
])  # fmt: skip
def test_variances_stay_positive_under_everything_that_is_meant_for_weights(how):
    world = normed("fedavg", data={"clients": 5}, **how)
    for _ in range(6):
        world.play()
        assert (buffers(world.method.model(world.progress.server))["1.running_var"] > 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_every_method_trains_a_model_with_running_statistics(name):
    world = normed(name, method={"density": 0.5} if name in ("ssfl", "client-masks", "dispfl", "sparsyfed") else {})
    losses = [world.play().loss for _ in range(8)]
    assert np.isfinite(losses).all()
    counter = buffers(world.method.model(world.progress.server))["1.num_batches_tracked"]
    assert counter > 0


def test_buffers_of_personal_layers_stay_on_the_client():
    world = World("local", model={"build": "toyworld:batch_norm"})
    entries = [world.play() for _ in range(2)]
    assert {entry.up_bytes for entry in entries} == {4 * (37 + 6)}
    assert buffers(world.method.model(world.progress.server))["1.num_batches_tracked"] == 0


class Moves(nn.Module):
    """Buffers of many kinds that every training step moves; a hook gives them other names in the state."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("odd", torch.tensor([False, True]))
        self.register_buffer("broad", torch.zeros(1).expand(3))
        self.register_buffer("loose", torch.zeros(2), persistent=False)
        self.register_state_dict_post_hook(self._rename)

    @staticmethod
    def _rename(module, state, prefix, metadata):
        state["renamed"] = state.pop(prefix + "steps")
        return state

    def forward(self, x):
        if self.training:
            self.steps += len(x)
            self.odd.logical_not_()
            self.broad += 1
            self.loose += 1
        return self.out(x) + self.loose.sum() * 0


@pytest.mark.parametrize(
    ("rule", "steps"), [(aggregate.Mean(), round((100 * 1 + 4 * 6 + 4 * 7) / 108)), (aggregate.Median(), 6)]
)
def test_buffers_of_every_kind_follow_the_rule(rule, steps):
    method = build("fedavg", Moves, aggregate=rule)
    state = method.init()
    held = method.receive(method.broadcast(state, None), None, None)
    updates = []
    for client, (samples, rows) in enumerate([(100, 1), (4, 6), (4, 7)]):
        x, y = np.ones((rows, FEATURES), np.float32), np.arange(rows) % CLASSES
        frame = frames.read(method.train(held, {}, Data(client, x, y))[0])
        updates.append(method.read(state, client, frames.write(replace(frame, samples=samples))))
    found = buffers(method.model(method.merge(state, updates)))
    assert found["steps"] == steps
    assert found["odd"].tolist() == [True, False]
    assert found["broad"].tolist() == [1, 1, 1]
    assert found["loose"].tolist() == [0, 0]  # it is no part of the state


# constants -----------------------------------------------------------------------------------------------------------


class Table(nn.Module):
    """Constants of many kinds, one of them not finite, and one counter near the end of the whole numbers."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), diagonal=1))
        self.register_buffer("short", torch.arange(3).to(torch.bfloat16))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("wide", torch.tensor([1e200, float("nan")], dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(2**62, dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.out(x) + 0 * torch.softmax(self.mask, -1).sum()


@pytest.mark.parametrize("name", ["fedavg", "fedpm", "ssfl"])
def test_constants_cost_a_digest_and_whole_numbers_are_exact(monkeypatch, name):
    method = build(name, Table)
    state = method.init()
    keyframe = frames.read(method.broadcast(state, None))
    assert len(keyframe.one(Section.STANDING)) == 8
    assert not keyframe.all(Section.BUFFERS)
    held = method.receive(method.broadcast(state, None), None, None)
    x, y = np.ones((12, FEATURES), np.float32), np.arange(12) % CLASSES
    frame, _, _ = method.train(held, method.client_init(0), Data(0, x, y))
    if name == "ssfl":  # saliencies are taken in evaluation mode
        return
    assert len(frames.read(frame).one(Section.BUFFERS)) == 1 + 8
    merged = method.merge(state, [method.read(state, 0, frame)])
    assert int(buffers(method.model(merged))["calls"]) > 2**62
    assert torch.equal(buffers(method.model(merged))["mask"], Table().mask)


def test_a_buffer_with_new_entries_that_are_not_finite_is_refused_by_name():
    method = build("fedavg", batch_norm)
    state = method.init()
    held = method.receive(method.broadcast(state, None), None, None)
    x, y = np.ones((12, FEATURES), np.float32), np.arange(12) % CLASSES
    frame = frames.read(method.train(held, {}, Data(0, x, y))[0])
    payload = frame.one(Section.BUFFERS)
    bad = payload[:1] + np.full(4, np.nan, np.float32).tobytes() + payload[17:]
    negative = payload[:17] + np.full(4, -1e-9, np.float32).tobytes() + payload[33:]

    def sent(buffers):
        sections = (*(part for part in frame.sections if part[0] != Section.BUFFERS), (Section.BUFFERS, buffers))
        return frames.write(replace(frame, sections=sections))

    for data, reason in (
        (bad, r"buffer 1\.running_mean: NaN or infinite"), (negative, r"buffer 1\.running_var: a negative"),
        (payload[:-1], "buffers: .* bytes, .* expected"),
        (payload + b"\0", "buffers: .* bytes, .* expected"), (b"\xff" + payload[1:], "not about 3 of them"),
    ):  # fmt: skip
        with pytest.raises(DecodeError, match=reason):
            method.read(state, 0, sent(data))


def test_other_first_buffers_are_refused_where_the_run_begins():
    def other():
        model = Table()
        model.mask[0, 0] = 1
        return model

    method, elsewhere = build("fedavg", Table), build("fedavg", other)
    with pytest.raises(DecodeError, match="frozen parameters or first buffers"):
        elsewhere.receive(method.broadcast(method.init(), None), None, None)


# frozen parameters ---------------------------------------------------------------------------------------------------


def half_frozen():
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("name", EVERY)
def test_frozen_parameters_never_change_and_never_travel(name):
    settings = {"method": {"density": 0.5}} if name in ("ssfl", "client-masks", "dispfl", "sparsyfed") else {}
    settings |= {"local": {"weight_decay": 0.1} if name != "fedpm" else {}}
    if name == "fedper":
        settings["method"] = {"layers": 1, "side": "first"}
    world = World(name, model={"build": f"{__name__}:half_frozen"}, **settings)
    before = world.method.model(world.progress.server)[0].weight.clone()
    for _ in range(3):
        world.play()
    model = world.method.model(world.progress.server)
    assert torch.equal(model[0].weight, before)
    assert not model[0].weight.requires_grad
    assert world.method.parameters == sum(parameter.numel() for parameter in half_frozen().parameters())
    assert world.method.init.__self__.flat.size == 8 * CLASSES + CLASSES


def test_a_model_of_frozen_parameters_alone_is_refused():
    with pytest.raises(ConfigError, match="a model with parameters that are trained"):
        build("fedavg", lambda: half_frozen().requires_grad_(False))


# tensors that cannot be part of a flat vector ------------------------------------------------------------------------


def lazy():
    return nn.Sequential(nn.LazyLinear(CLASSES))


def meta():
    return nn.Linear(FEATURES, CLASSES, device="meta")


def one_memory():
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


def with_buffer(tensor):
    model = nn.Linear(FEATURES, CLASSES)
    model.register_buffer("extra", tensor)
    return model


def quantised():
    warnings.simplefilter("ignore")
    return with_buffer(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8))


def sparse():
    return with_buffer(torch.eye(3).to_sparse())


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in many models
        return torch.jit.script(nn.Linear(FEATURES, CLASSES))


def complex_buffer():
    model = nn.Linear(FEATURES, CLASSES)
    model.register_buffer("extra", torch.zeros(3, dtype=torch.complex64))
    return model


class Extra(nn.Linear):
    """Has a state beside its tensors."""

    def __init__(self, extra):
        super().__init__(FEATURES, CLASSES)
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def extra_state():
    return nn.Sequential(nn.Identity(), Extra({"calls": 1}))


@pytest.mark.parametrize("name", ["fedavg", "fedpm"])
def test_extra_state_that_is_a_tensor_is_in_the_model(name):
    method = build(name, lambda: Extra(torch.ones(2)))
    assert method.model(method.init()).state_dict()["_extra_state"].tolist() == [1, 1]


@pytest.mark.parametrize("method", ["fedavg", "fedpm", "ssfl"])
@pytest.mark.parametrize(("make", "named"), [
    (extra_state, r"model layer 1 = 'get_extra_state\(\) gives dict': a tensor: .* cannot travel"),
    (lazy, r"model tensor 0\.\w+ = 'lazy"), (meta, "model tensor weight = 'on the meta device'"),
    (one_memory, r"model tensor [01]\.weight = 'a view'.*shares that of [01]\.weight"),
    (complex_buffer, "model buffer extra = 'torch.complex64'"),
    (quantised, "model tensor extra = 'torch.quint8': a plain tensor"),
    (sparse, "model tensor extra = 'torch.sparse_coo': a plain tensor"), (scripted, "a module in Python"),
])  # fmt: skip
def test_a_tensor_that_cannot_be_trained_is_refused_by_name(method, make, named):
    with pytest.raises(ConfigError, match=named):
        build(method, make)


BACKBONE, WEIGHT = nn.Linear(FEATURES, FEATURES), nn.Parameter(torch.ones(CLASSES, FEATURES))


def shared_weight():
    model = nn.Linear(FEATURES, CLASSES)
    model.weight = WEIGHT
    return model


@pytest.mark.parametrize(("make", "named"), [
    (lambda: BACKBONE, "model = 'Linear'"),
    (lambda: nn.Sequential(BACKBONE, nn.Linear(FEATURES, CLASSES)), "model part 0 = 'Sequential'"),
    (shared_weight, "model part weight = 'Linear'"),
])  # fmt: skip
def test_a_function_that_hands_out_a_module_or_parameter_again_is_refused(make, named):
    with pytest.raises(ConfigError, match=f"{named}: .*new modules and parameters each time"):
        [build("fedavg", make) for _ in range(2)]
