"""What lies in a node's `state-dir`: a disk that rots, a neighbour who writes there, a file from elsewhere.

Who attacks: whoever can change or exchange the file in which a client keeps its memory between rounds, or the pair's
memory in Flower's state. What must happen: the file is as good as lost. One warning names it, the client is sent a
keyframe in the same round and goes on; it never trains from another model, and never fails in every later round.
"""

import os
from shutil import rmtree

import numpy as np
import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load, save
from test_flower_methods import METHODS, experiment, on_nodes
from thinapp import STC, Net, run
from thinapp import client_app as pair_app

from thinwire.flower import client_app
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.exchange import KEYFRAME_NEXT
from thinwire.flower.memory import Memory
from thinwire.runtime import run as runs
from thinwire.runtime.assembly import assemble
from thinwire.runtime.client import Record

VICTIM = 1


def play(made, folder, hurt):
    """Three rounds; `hurt` has the victim's file after the first. -> the rounds, what the victim was asked"""
    nodes = Nodes(client_app(made), 3, node_config={"state-dir": str(folder / "state")})

    def after(entry, rounds):
        if entry.round == 1:
            hurt(*(folder / "state").glob(f"*-client-{VICTIM}.safetensors"))

    result = runs.start(made, folder / "run", connect=on_nodes(made, nodes), on_round=after)
    return result.rounds, [kind for node, kind in nodes.asked if node == nodes.node_of(VICTIM)]


def memory_of(made, folder):
    """The victim's memory, and what a node holds after the first keyframe."""
    method = assemble(made).method
    held = method.receive(method.broadcast(method.init(), None), None, None)
    return Memory(method, 7, VICTIM, Context(0, 1, {"state-dir": str(folder)}, RecordDict(), {})), held


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


def pipe_there(file):
    """Whoever reads it waits for a writer that never comes."""
    file.unlink()
    os.mkfifo(file)


def pipe_beside(file):
    """Under the name that the next file is written with: whoever opens it waits for a reader that never comes."""
    pipe_there(file)
    os.mkfifo(file.with_name(file.name + ".tmp"))


def file_as_folder(file):
    """The whole `state-dir` is gone, and something else has its name."""
    rmtree(file.parent)
    file.parent.write_bytes(b"")


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


@pytest.mark.parametrize("hurt", [folder_there, pipe_there, pipe_beside, file_as_folder])
def test_what_cannot_be_read_or_written_costs_a_keyframe_and_no_round(hurt, tmp_path, caplog):
    """While such a place stays as it is, the client remembers in Flower's state instead."""
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        rounds, asked = play(experiment(method="scaffold", fraction=1.0, rounds=4), tmp_path, hurt)
    assert [(entry.clients, entry.dropped) for entry in rounds] == [(3, [])] * 4
    assert asked.count("train") == 5  # twice in round 2, with the keyframe, and in no round after it
    assert all("state" in record.getMessage() and "\n" not in record.getMessage() for record in caplog.records)
    assert caplog.records


def test_a_file_that_can_be_written_again_is_the_memory_again(tmp_path):
    """What lay in Flower's state meanwhile is not left there, where it would be older than the file."""
    memory, held = memory_of(experiment(method="fedavg"), tmp_path)
    memory.path.mkdir()
    memory.save(Record(have=1), held)
    assert memory.load()[0] == Record(have=1)
    memory.path.rmdir()
    memory.save(Record(have=2), held)
    assert memory.load()[0] == Record(have=2)
    assert not memory.context.state


def test_the_state_of_a_model_with_other_shapes_is_as_good_as_lost(tmp_path, caplog):
    """The same run id and client, as after the module of one's own model was edited: only the shapes tell."""
    ours, held = memory_of(experiment(method="fedavg"), tmp_path)
    ours.save(Record(0), held)
    assert ours.load()[0] == Record(0)
    other, _ = memory_of(experiment(method="fedavg", data="toyworld:blobs", model="linear"), tmp_path)
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
