"""Personal models: what stays on the client never travels, and is there again in the next round."""

import numpy as np
import pytest
import torch
from toyworld import World, blobs, build, roomy, two_layers

import thinwire
from thinwire import modelfile
from thinwire.errors import ConfigError
from thinwire.methods import Data
from thinwire.models import TwoLayer
from thinwire.parameterisations import PFedPara
from thinwire.runtime.state import arrays_from_bytes
from thinwire.tensors import FlatModel
from thinwire.train import Local

DIGITS = {"load": None, "name": "digits", "clients": 2}
P = 5 * 6 + 5 + 3 * 5 + 3
FIRST, SECOND = 5 * 6 + 5, 3 * 5 + 3


def algorithm(method):
    """The object behind a method's functions."""
    return method.init.__self__


def test_a_flat_model_puts_personal_parameters_last_and_out_of_the_layout():
    torch.manual_seed(0)
    model = two_layers()
    first = model.first.weight.detach().clone()
    flat = FlatModel(model, personal={"first.weight", "first.bias"})
    assert [entry.name for entry in flat.layout] == ["second.weight", "second.bias"]
    assert (flat.size, flat.shared) == (P, SECOND)
    assert flat.read().shape == (SECOND,)
    np.testing.assert_array_equal(flat.read_personal()[:30], first.numpy().ravel())
    flat.write(np.arange(SECOND, dtype=np.float32))
    flat.write_personal(-np.arange(FIRST, dtype=np.float32))
    np.testing.assert_array_equal(model.second.bias.detach().numpy(), np.arange(SECOND)[-3:])
    np.testing.assert_array_equal(model.first.bias.detach().numpy(), -np.arange(FIRST)[-5:])
    assert flat.read_personal().tolist() == list(-np.arange(FIRST))


@pytest.mark.parametrize(("side", "shared"), [("last", FIRST), ("first", SECOND)])
def test_fedper_sends_the_other_layers_only(side, shared):
    world = World("fedper", method={"side": side})
    entry = world.play()
    assert entry.up_bytes == 4 * (37 + 6 + 4 * shared)
    assert world.method.parameters == P


def test_local_sends_headers_only_and_the_servers_model_stays():
    world = World("local")
    before = algorithm(world.method).start_personal
    entries = [world.play() for _ in range(3)]
    assert {entry.up_bytes for entry in entries} == {4 * (37 + 6)}
    world.method.model(world.progress.server)
    np.testing.assert_array_equal(algorithm(world.method).flat.read_personal(), before)
    assert entries[0].accuracy == entries[-1].accuracy
    assert entries[-1].train_loss < entries[0].train_loss


def test_local_is_training_alone():
    world = World("local")
    for _ in range(3):
        world.play()
    alone = build("fedavg", local=world.assembly.setup.local, seed=3)
    data = world.assembly.client_data(1)
    state, held = alone.init(), None
    for _ in range(3):
        held = alone.receive(alone.broadcast(state, None), None, None)
        message, _, _ = alone.train(held, {}, data)
        state = alone.merge(state, [alone.read(state, 1, message)])
    personal = arrays_from_bytes(world.progress.records[1].pending)["personal"]
    np.testing.assert_allclose(personal, state.weights, atol=1e-6)


@pytest.mark.parametrize("name", ["fedper", "local"])
@pytest.mark.parametrize("uplink", ["float32", "stc"])
def test_each_clients_personal_part_is_its_own(name, uplink):
    world = World(name, uplink={"id": uplink, "error_feedback": True}, data={"partition": "shards:1"})
    for _ in range(5):
        world.play()
    parts = [arrays_from_bytes(world.progress.records[client].pending)["personal"] for client in world.clients]
    assert len({part.tobytes() for part in parts}) == len(parts)


def test_a_model_with_its_personal_part_beats_the_shared_one_on_the_clients_own_data():
    world = World("fedper", data={"partition": "shards:1"}, local={"epochs": 2})
    for _ in range(8):
        world.play()
    method, state = world.method, world.progress.server
    held = method.receive(method.broadcast(state, None), None, None)
    client = world.clients[0]
    data = world.assembly.client_data(client)
    own = method.evaluate(held, arrays_from_bytes(world.progress.records[client].pending), data)
    fresh = method.evaluate(held, method.client_init(client), data)
    assert own["loss"] < fresh["loss"]


def test_evaluation_is_on_what_is_held_back_and_after_fine_tuning():
    (x, y), (test_x, test_y) = blobs()
    plain, tuned = build("fedavg"), build("fedavg", options={"fine_tune": 20})
    held = plain.receive(plain.broadcast(plain.init(), None), None, None)
    data = Data(0, x, y, test_x, test_y)
    own = plain.evaluate(held, {}, Data(0, x, y))
    assert plain.evaluate(held, {}, data) != own
    assert tuned.evaluate(held, {}, data)["loss"] < plain.evaluate(held, {}, data)["loss"] / 2
    assert tuned.evaluate(held, {}, data) == tuned.evaluate(held, {}, data)


def test_pfedpara_shares_half_of_the_factors_and_the_biases():
    world = World("fedavg", parameterisation={"name": "pfedpara", "gamma": 0.5}, model={"build": "toyworld:roomy"})
    entry = world.play()
    flat = algorithm(world.method).flat
    names = [entry.name for entry in flat.layout]
    assert {"0.bias", "2.bias", "4.bias"} <= set(names)
    personal = flat.size - flat.shared
    factors = [e.size for e in flat.layout if "parametrizations" in e.name]
    assert personal == sum(factors) > 0
    assert entry.up_bytes == 4 * (37 + 6 + 4 * flat.layout.size)
    assert world.method.parameters == sum(p.numel() for p in roomy().parameters())
    assert isinstance(world.assembly.setup.parameterisation, PFedPara)


def update_bytes(classes, method="fedavg", parameterisation=None):
    """Bytes of one client's frame for 784-256-classes."""
    setup = {"model": lambda: TwoLayer((1, 28, 28), classes), "local": Local(batch_size=4, lr=0.01)}
    one = build(method, parameterisation=parameterisation, **setup)
    held = one.receive(one.broadcast(one.init(), None), None, None)
    data = Data(0, np.zeros((4, 1, 28, 28), np.float32), np.arange(4))
    return len(one.train(held, one.client_init(0), data)[0])


def test_bytes_of_personal_updates_against_dense_ones_are_the_papers():
    for classes in (10, 62):
        personal = update_bytes(classes, parameterisation=PFedPara())
        assert update_bytes(classes) / personal == pytest.approx(3.4, abs=0.05)
    assert update_bytes(62) / update_bytes(62, "fedper") == pytest.approx(1.08, abs=0.005)
    assert update_bytes(10) / update_bytes(10, "fedper") == pytest.approx(1.01, abs=0.005)


@pytest.mark.parametrize("name", ["fedpara", "pfedpara", "lowrank", "tucker"])
@pytest.mark.parametrize("method", ["fedavg", "fedprox", "scaffold", "feddyn", "fedper", "local"])
def test_every_algorithm_trains_every_parameterisation_through_a_codec(name, method):
    world = World(
        method, parameterisation={"name": name, "gamma": 0.3}, model={"build": "toyworld:roomy"},
        uplink={"id": "qsgd"}, downlink={"id": "bfloat16"}, local={"lr": 0.2},
    )  # fmt: skip
    ledger = [world.play() for _ in range(6)]
    assert ledger[-1].train_loss < ledger[0].train_loss


def test_the_shipped_file_holds_the_factors_and_loads_as_a_plain_model(tmp_path):
    mlp = {"name": "mlp", "build": None}
    world = World("fedavg", parameterisation={"name": "fedpara", "gamma": 0.2}, model=mlp, data=DIGITS)
    world.play()
    shipped = world.method.ship(world.progress.server, world.assembly.description)
    path = modelfile.save_bytes(shipped, tmp_path / "model.safetensors")
    plain = thinwire.load(path)
    assert len(shipped) < 4 * world.method.parameters * 0.6
    assert sum(p.numel() for p in plain.parameters()) == world.method.parameters
    x = torch.from_numpy(world.assembly.dataset.test.x)
    torch.testing.assert_close(plain(x), world.method.model(world.progress.server).eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "middle"}, r"method\.side = 'middle': first or last"),
        ({"layers": 0}, r"method\.layers = 0: a number of layers from 1 on"),
        ({"layers": 2}, r"method\.layers = 2: below 2, the layers of this model: first, second"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        build("fedper", options=options)
