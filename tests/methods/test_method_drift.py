"""FedProx, SCAFFOLD and FedDyn on the wire: what travels, what both ends hold, what they combine with."""

import numpy as np
import pytest
from toyworld import World, build

from thinwire import frame as frames
from thinwire.codecs import BFloat16
from thinwire.errors import ConfigError, DecodeError
from thinwire.frame import Section
from thinwire.methods.server import FedAdam, Mean
from thinwire.runtime.state import arrays_from_bytes
from thinwire.train import Local

P = 5 * 6 + 5 + 3 * 5 + 3
DRIFT = ["fedprox", "scaffold", "feddyn"]
SGD = Local(batch_size=8, optimizer="sgd", lr=0.1)


@pytest.mark.parametrize("name", DRIFT)
@pytest.mark.parametrize("model", ["two_layers", "batch_norm", "tied"])
def test_trains_any_model_with_codecs_both_ways(name, model):
    codecs = {"uplink": {"id": "qsgd"}, "downlink": {"id": "bfloat16"}}
    world = World(
        name, model={"build": f"toyworld:{model}"}, data={"partition": "dirichlet:0.5", "allow_empty": True}, **codecs
    )
    ledger = [world.play() for _ in range(8)]
    assert min(entry.loss for entry in ledger[4:]) < ledger[0].loss
    assert all(parameter.isfinite().all() for parameter in world.method.model(world.progress.server).parameters())


@pytest.mark.parametrize("name", DRIFT)
def test_updates_are_as_small_as_fedavgs(name):
    plain, world = World("fedavg"), World(name)
    for _ in range(2):
        assert world.play().up_bytes == plain.play().up_bytes


def test_scaffold_charges_the_control_variate_down():
    plain, world = World("fedavg"), World("scaffold")
    rounds = [(plain.play(), world.play()) for _ in range(2)]
    assert rounds[0][0].down_bytes == rounds[0][1].down_bytes  # version 0: c = 0 on both ends
    extra = rounds[1][1].down_bytes - rounds[1][0].down_bytes
    assert extra == 4 * (2 + 4 * P)  # a length of two bytes and c's change, to four clients


def settled(world, client):
    """What a client keeps once its last update counts."""
    return arrays_from_bytes(world.progress.records[client].pending)


@pytest.mark.parametrize("uplink", ["float32", "stc", "eden"])
def test_the_servers_control_variate_is_the_mean_of_the_clients(uplink):
    world = World("scaffold", uplink={"id": uplink, "error_feedback": uplink == "stc"})
    for _ in range(3):
        world.play()
    mean = np.mean([settled(world, client)["control"] for client in world.clients], axis=0)
    np.testing.assert_allclose(world.progress.server.memory[0], mean, atol=1e-5)
    assert np.abs(mean).max() > 0


@pytest.mark.parametrize("downlink", ["float32", "bfloat16"])
def test_both_ends_hold_the_same_control_variate_by_steps_and_by_keyframe(downlink):
    world = World("scaffold", downlink={"id": downlink})
    method, held = world.method, None
    for _ in range(4):
        state = world.progress.server
        held = method.receive(method.broadcast(state, held.version if held else None), held, held and held.version)
        fresh = method.receive(method.broadcast(state, None), None, None)
        control = [h.value.beside[0] if h.value.beside else np.zeros(P, np.float32) for h in (held, fresh)]
        assert control[0].tobytes() == state.memory[0].tobytes()
        assert control[1].tobytes() == state.memory[0].tobytes()
        world.play()


def test_the_residual_of_the_control_variate_is_carried():
    method = build("scaffold", local=SGD, downlink=BFloat16(), clients=1)
    world = World("scaffold", downlink={"id": "bfloat16"})
    world.play()
    control, residual = world.progress.server.memory
    assert np.abs(residual).max() > 0
    assert np.abs(residual).max() < 2**-7 * np.abs(control).max()
    assert not np.concatenate(method.init().memory).any()


def test_a_keyframe_with_another_control_variate_is_refused():
    world = World("scaffold")
    for _ in range(2):
        world.play()
    method, state = world.method, world.progress.server
    held = method.receive(method.broadcast(state, None), None, None)
    frame = frames.read(method.broadcast(state, None))
    sections = tuple((s, d if s != Section.CONTROL else bytes(len(d))) for s, d in frame.sections)
    other = frames.write(frames.Frame(**{**frame.__dict__, "sections": sections}))
    with pytest.raises(DecodeError, match="the keyframe of version 2 differs"):
        method.receive(other, held, None)
    cut = frames.write(frames.Frame(**{**frame.__dict__, "sections": frame.sections[:1]}))
    with pytest.raises(DecodeError, match="0 sections control"):
        method.receive(cut, None, None)


def test_a_cut_step_is_refused():
    world = World("scaffold")
    world.play()
    method, first = world.method, world.progress.server
    held = method.receive(method.broadcast(first, None), None, None)
    world.play()
    frame = frames.read(method.broadcast(world.progress.server, 1))
    for payload in (b"", frame.sections[0][1][:20], frame.sections[0][1] + b"x"):
        bad = frames.write(frames.Frame(**{**frame.__dict__, "sections": ((Section.STEP, payload),)}))
        with pytest.raises(DecodeError):
            method.receive(bad, held, 1)


@pytest.mark.parametrize(
    ("name", "options", "setup", "message"),
    [
        ("fedprox", {"mu": -1.0}, {}, r"method\.mu = -1\.0: at least 0"),
        ("feddyn", {"alpha": 0.0}, {}, r"method\.alpha = 0\.0: above 0"),
        ("feddyn", {}, {"server": FedAdam()}, r"server\.optimizer = .*: mean for feddyn"),
        ("scaffold", {}, {"server": FedAdam()}, r"server\.optimizer = .*: mean for scaffold"),
        ("scaffold", {}, {"local": Local(optimizer="adam")}, r"local\.optimizer = 'adam': sgd for scaffold"),
        ("scaffold", {}, {"local": Local(momentum=0.9)}, r"local\.momentum = 0\.9: 0 for scaffold"),
        ("scaffold", {}, {"local": Local(lr=0.0)}, r"local\.lr = 0\.0: above 0 for scaffold"),
        ("scaffold", {"mu": 0.1}, {}, r"method\.mu = 0\.1: unknown field"),
        ("fedavg", {"fine_tune": -1}, {}, r"method\.fine_tune = -1: a number of epochs"),
    ],
)
def test_wrong_settings(name, options, setup, message):
    with pytest.raises(ConfigError, match=message):
        build(name, options=options, **({"local": SGD} | setup))


def test_a_step_size_of_the_server():
    fast, plain = World("scaffold", server={"optimizer": "mean", "lr": 0.5}), World("scaffold")
    start = plain.progress.server.weights.copy()
    for world in (fast, plain):
        world.play()
    halved = (plain.progress.server.weights - start) / 2
    np.testing.assert_allclose(fast.progress.server.weights - start, halved, atol=1e-7)
    assert Mean(lr=0.5) == fast.assembly.setup.server
