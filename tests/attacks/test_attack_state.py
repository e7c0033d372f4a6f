"""What lies in a node's `state-dir`: a disk that rots, a neighbour who writes there, a file from elsewhere.

Who attacks: whoever can change or exchange the file in which a client keeps its memory between rounds, or the pair's
memory in Flower's state. What must happen: the file is as good as lost. One warning names it, the client is sent a
keyframe in the same round and goes on; it never trains from another model, and never fails in every later round.
"""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load, save
from test_flower_methods import METHODS, experiment, on_nodes
from thinapp import STC, Net, run
from thinapp import client_app as pair_app

from thinwire.flower import client_app
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.exchange import KEYFRAME_NEXT
from thinwire.runtime import run as runs

VICTIM = 1


def play(made, folder, hurt):
    """Three rounds; `hurt` has the victim's file after the first. -> the rounds, what the victim was asked"""
    nodes = Nodes(client_app(made), 3, node_config={"state-dir": str(folder / "state")})

    def after(entry, rounds):
        if entry.round == 1:
            hurt(*(folder / "state").glob(f"*-client-{VICTIM}.safetensors"))

    result = runs.start(made, folder / "run", connect=on_nodes(made, nodes), on_round=after)
    return result.rounds, [kind for node, kind in nodes.asked if node == nodes.node_of(VICTIM)]


def set_one(name):
    """One number of an array, the file well-formed as before."""

    def hurt(file):
        arrays = dict(load(file.read_bytes()))
        changed = arrays[name].copy()
        changed.reshape(-1)[0] += 1
        file.write_bytes(save(arrays | {name: changed}))

    return hurt


def flip_last(file):
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def without_seal(file):
    """As an older version of thinwire, or a careful attacker, would write it."""
    arrays = dict(load(file.read_bytes()))
    del arrays["digest"]
    file.write_bytes(save(arrays))


def of_the_neighbour(file):
    file.write_bytes(file.with_name(file.name.replace(f"client-{VICTIM}", "client-0")).read_bytes())


def unlike_json(file):
    file.write_bytes(save({"tree": np.frombuffer(b"[" * 100_000, np.uint8)}))


def folder_there(file):
    file.unlink()
    file.mkdir()
    (file / "x").mkdir()


HURT = {
    "a weight": set_one("state.value.weights"),
    "the last byte": flip_last,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty of arrays": lambda file: file.write_bytes(save({})),
    "noise": lambda file: file.write_bytes(bytes(range(256)) * 9),
    "no seal": without_seal,
    "the neighbour's": of_the_neighbour,
    "deep json": unlike_json,
}


@pytest.mark.parametrize("name", HURT)
def test_a_state_file_that_was_changed_is_as_good_as_lost(name, tmp_path, caplog):
    made = experiment(method="fedavg", rounds=3)
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        rounds, asked = play(made, tmp_path, HURT[name])
    assert [entry.clients for entry in rounds] == [3, 3, 3]
    assert [entry.dropped for entry in rounds] == [[], [], []]
    assert asked == ["query", "train", "train", "train", "train"]  # the second time in round 2 with the keyframe
    (warning,) = {record.getMessage() for record in caplog.records}
    assert f"client-{VICTIM}.safetensors: " in warning
    assert "asking for a keyframe" in warning
    assert len(warning.splitlines()) == 1


@pytest.mark.parametrize("method", ["scaffold", "ssfl + m22", "fedpm"])
def test_no_method_trains_from_a_memory_that_was_changed(method, tmp_path, caplog):
    made = experiment(**{**METHODS[method], "fraction": 1.0, "rounds": 3})
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        rounds, _ = play(made, tmp_path, flip_last)
    assert all(not entry.dropped and entry.clients == 3 for entry in rounds)
    assert len({record.getMessage() for record in caplog.records}) == 1


def test_a_folder_in_place_of_the_file_harms_that_client_only_and_is_named(tmp_path):
    rounds, _ = play(experiment(method="fedavg", rounds=3), tmp_path, folder_there)
    for entry in rounds[1:]:
        ((client, reason),) = (drop.values() for drop in entry.dropped)
        assert (client, entry.clients) == (VICTIM, 2)
        assert "client-1.safetensors" in reason


def test_the_state_of_a_model_with_other_shapes_is_as_good_as_lost(tmp_path, caplog):
    """The same run id and client, as after the module of one's own model was edited: only the shapes tell."""
    from flwr.app import Context, RecordDict

    from thinwire.flower.memory import Memory
    from thinwire.runtime.assembly import assemble
    from thinwire.runtime.client import Record

    def memory(made):
        method = assemble(made).method
        held = method.receive(method.broadcast(method.init(), None), None, None)
        return Memory(method, 7, VICTIM, Context(0, 1, {"state-dir": str(tmp_path)}, RecordDict(), {})), held

    ours, held = memory(experiment(method="fedavg"))
    ours.save(Record(0), held)
    assert ours.load()[0] == Record(0)
    other, _ = memory(experiment(method="fedavg", data="toyworld:blobs", model="linear"))
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        assert other.load() == (Record(), None)
    assert "digest" in caplog.text


# The pair keeps its memory in Flower's own state, never in a file: what an app, or Flower, leaves there in its place.


def strange(context):
    context.state["thinwire-arrays"] = ArrayRecord({"residual": Array(np.zeros((2, 2), np.float64))})
    context.state["thinwire-words"] = ConfigRecord({"run": 0, "pending-round": -1})


def of_another_size(context):
    """What was kept, all its words right, the vectors two entries long."""
    record = context.state["thinwire-arrays"]
    context.state["thinwire-arrays"] = ArrayRecord({name: Array(np.ones(2, np.float32)) for name in record})


@pytest.mark.parametrize("hurt", [strange, of_another_size])
@pytest.mark.parametrize("downlink", [None, STC])
def test_the_pair_forgets_what_is_not_its_memory(hurt, downlink):
    app, strategy = pair_app([compress(STC)]), Compressed(FedAvg(), STC, downlink=downlink)
    net = Net(app, 3)

    def between(round, arrays):
        if round == 1:
            hurt(net.contexts[net.node_of(VICTIM)])

    def heard(node, reply):
        failed.append(reply.error.reason) if reply.has_error() else None
        return reply

    failed, net.change = [], heard
    run(strategy, app, rounds=4, net=net, evaluate_fn=between)
    assert not failed
    assert all(drop.reason == KEYFRAME_NEXT for drop in strategy.dropped)
    assert {drop.round for drop in strategy.dropped} <= {2}
