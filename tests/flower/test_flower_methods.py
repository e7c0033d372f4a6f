"""Every method on Flower's apps: the frames and the model of a run in one process, byte for byte."""

import json
from dataclasses import replace
from functools import partial

import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes, Tape
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from thinwire import api
from thinwire import frame as frames
from thinwire.errors import ConfigError, TrainingError
from thinwire.flower import client_app, grid, messages
from thinwire.flower.grid import GridPool
from thinwire.flower.server import play
from thinwire.runtime import run as runs
from thinwire.runtime.client import Clients
from thinwire.runtime.experiment import parse
from thinwire.runtime.pool import Inline

WORLD = {"data": "toyworld:blobs", "model": "toyworld:two_layers", "clients": 3, "rounds": 4, "batch_size": 8}
METHODS = {
    "fedavg + fedzip": {"method": "fedavg", "uplink": {"id": "fedzip", "variant": "pinned", "keep": 0.2,
                                                       "error_feedback": True}},
    "fedpm": {"method": "fedpm"},
    "ssfl + m22": {"method": "ssfl", "method.density": 0.5, "uplink": {"id": "m22", "keep": 0.5}},
    "pfedpara": {"method": "pfedpara", "test_fraction": 0.2, "evaluation.every": 2,
                 "data": "digits", "model": "mlp", "rounds": 2, "parameterisation.gamma": 0.3},
    "scaffold": {"method": "scaffold", "fraction": 0.67,
                 "link": {"up_mbps": 1, "down_mbps": 8, "latency_ms": 20, "spread": 0.5}},
    "thin downlink": {"method": "stc", "downlink": {"id": "stc", "keep": 0.2}, "fraction": 0.67},
}  # fmt: skip


def experiment(**options):
    return parse(api.settings(**{**WORLD, **options}))


def taped(made, out, pool_of):
    tapes = []

    def connect(assembly):
        tapes.append(Tape(pool_of(assembly)))
        return tapes[-1]

    result = runs.start(made, out, connect=connect)
    return result, tapes[0].frames


def inline(assembly):
    return Inline(Clients(assembly.method, assembly.client_data, assembly.run_id, assembly.evaluation_data))


def on_nodes(made, nodes):
    return lambda assembly: GridPool(nodes, assembly.run_id, assembly.clients, made.cohort)


def lines(out):
    found = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def model_bytes(result):
    return next(result.out.glob("model.*")).read_bytes()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("keep", ["context", "disk"])
def test_flower_has_the_frames_and_the_model_of_one_process(name, keep, tmp_path):
    made = experiment(**METHODS[name])
    here, expected = taped(made, tmp_path / "here", inline)
    config = {"state-dir": str(tmp_path / "state")} if keep == "disk" else {}
    nodes = Nodes(client_app(made), made.data.clients, node_config=config)
    there, frames = taped(made, tmp_path / "there", on_nodes(made, nodes))
    assert frames == expected
    assert model_bytes(here) == model_bytes(there)
    assert lines(tmp_path / "here") == lines(tmp_path / "there")
    kept_in_flower = [context.state for context in nodes.contexts.values() if context.state]
    assert bool(kept_in_flower) == (keep == "context")


def test_flower_node_that_lost_its_memory_gets_a_keyframe_in_the_same_round(tmp_path):
    made = experiment(method="fedavg", rounds=3)
    nodes = Nodes(client_app(made), 3)

    def forget(entry, rounds):
        if entry.round == 1:
            nodes.leave(1)
            nodes.join(1)

    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=forget)
    assert [entry.clients for entry in result.rounds] == [3, 3, 3]
    asked = [kind for node, kind in nodes.asked if node == nodes.node_of(1)]
    assert asked == ["query", "train", "train", "train"]  # the second with the keyframe, in round 2
    assert result.rounds[1].down_bytes > result.rounds[2].down_bytes


def test_flower_node_that_is_lost_in_mid_round_is_dropped_by_name_and_the_round_goes_on(tmp_path):
    made = experiment(method="fedavg", rounds=3, **{"cohort.round_timeout": 0.3})
    nodes = Nodes(client_app(made), 3)

    def lose(entry, rounds):
        nodes.lost = {nodes.node_of(2)} if entry.round == 1 else set()

    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=lose)
    assert [entry.clients for entry in result.rounds] == [3, 2, 3]
    assert result.rounds[1].dropped == [{"client": 2, "reason": "no reply when the round ended, 2 were there"}]


def test_flower_node_whose_first_answer_came_too_late_is_asked_again(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    nodes, expired = Nodes(client_app(made), 3), []

    def expire_once(node, reply):
        if reply.metadata.message_type != "query" or node != nodes.node_of(1) or expired:
            return reply
        expired.append(Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "expired"), reply_to=reply))
        expired[0].metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return expired[0]

    nodes.change = expire_once
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    assert expired
    assert result.rounds[0].clients == 3


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only while the grid sleeps."""
    now = [0.0]
    monkeypatch.setattr(grid, "monotonic", lambda: now[0])
    monkeypatch.setattr(grid, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_flower_silent_node_costs_one_short_wait_where_nobody_is_missing(tmp_path, clock):
    made = experiment(method="fedavg", rounds=3)
    nodes, ends = Nodes(client_app(made), 3), []
    nodes.silent = {nodes.join(7)}
    result = runs.start(
        made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=lambda *_: ends.append(clock[0])
    )
    assert [entry.clients for entry in result.rounds] == [3, 3, 3]
    assert grid.NEWCOMER_SECONDS <= ends[0] < grid.NEWCOMER_SECONDS + 2
    assert ends == [ends[0]] * 3


def test_flower_node_that_died_is_replaced_before_the_round_by_one_that_is_slow_to_answer(tmp_path, clock):
    made = experiment(method="fedavg", rounds=2)
    nodes = Nodes(client_app(made), 3)

    def die(entry, rounds):
        nodes.lost = nodes.silent = {nodes.node_of(1)}  # still listed
        node, hear = nodes.join(1), nodes.pull_messages
        nodes.pull_messages = lambda numbers: hear(numbers) if clock[0] > 4 or nodes.asked[-1][0] != node else []

    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=die)
    assert [entry.clients for entry in result.rounds] == [3, 3]
    assert clock[0] < grid.HELLO_SECONDS + 2  # in which the node that died could say that it is there


def test_flower_silent_node_costs_one_wait_of_a_rounds_time(tmp_path, clock):
    """One client has no node, and one node never says who it is: it might be that client."""
    made = experiment(method="fedavg", rounds=3, **{"cohort.join_timeout": 0, "cohort.round_timeout": 7})
    nodes, ends = Nodes(client_app(made), 2), []
    nodes.silent = {nodes.join(7)}
    runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=lambda *_: ends.append(clock[0]))
    assert 7 <= ends[0] < 9
    assert ends == [ends[0]] * 3


def test_flower_first_round_waits_for_as_many_nodes_as_it_needs(tmp_path, monkeypatch):
    made = experiment(method="fedavg", rounds=1, fraction=0.67, **{"cohort.oversample": 1.5})
    monkeypatch.setattr(grid, "sleep", lambda seconds: pytest.fail("waits") if seconds else None)
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, Nodes(client_app(made), 2)))
    assert result.rounds[0].clients == 2


def test_flower_node_is_the_client_again_when_one_that_took_its_place_leaves(tmp_path):
    made = experiment(method="fedavg", rounds=3)
    nodes = Nodes(client_app(made), 3)

    def come_and_go(entry, rounds):
        if entry.round == 1:
            nodes.join(1)
        elif entry.round == 2:
            nodes.leave(1)

    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=come_and_go)
    assert [entry.clients for entry in result.rounds] == [3, 3, 3]


@pytest.mark.parametrize("claim", [[1], 1.0, "1", True, -1, 3, 2**40])
def test_flower_node_that_is_no_client_takes_no_part(claim, tmp_path, caplog):
    made = experiment(method="fedavg", rounds=1, **{"cohort.join_timeout": 0})
    nodes = Nodes(client_app(made), 3)

    def lie(node, reply):
        if reply.metadata.message_type == "query" and node == nodes.node_of(1):
            next(iter(reply.content.config_records.values()))["client"] = claim
        return reply

    nodes.change = lie
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    assert [drop["client"] for drop in result.rounds[0].dropped] == [1]


def test_flower_client_without_a_node_is_named(tmp_path):
    made = experiment(method="fedavg", rounds=1, **{"cohort.join_timeout": 0})
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, Nodes(client_app(made), 2)))
    assert result.rounds[0].dropped == [{"client": 2, "reason": "no node has said that it is this client"}]


def test_flower_round_without_its_quorum_stops_the_run_which_can_be_resumed(tmp_path):
    made = experiment(method="fedavg", rounds=3, **{"cohort.round_timeout": 0.3, "cohort.min_replies": 3})
    nodes = Nodes(client_app(made), 3)

    def lose(entry, rounds):
        nodes.lost = {nodes.node_of(0)}

    with pytest.raises(TrainingError, match=r"round 2: 2 updates, cohort.min_replies is 3"):
        runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=lose)
    nodes.lost = set()
    assert len(play(made, nodes, tmp_path / "run").rounds) == 3


def test_flower_oversampled_round_takes_the_first_replies(tmp_path):
    made = experiment(method="fedavg", rounds=2, fraction=0.67, **{"cohort.oversample": 1.2, "cohort.round_timeout": 5})
    nodes = Nodes(client_app(made), 3)
    nodes.lost = {nodes.node_of(1)}
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    assert [entry.clients for entry in result.rounds] == [2, 2]
    assert [drop["client"] for entry in result.rounds for drop in entry.dropped] == [1, 1]


def test_flower_run_goes_on_from_its_directory_with_the_same_bytes(tmp_path):
    made = experiment(**METHODS["fedavg + fedzip"])
    whole, _ = taped(made, tmp_path / "whole", inline)
    config = {"state-dir": str(tmp_path / "state")}

    class Stop(Exception):
        pass

    def stop(entry, rounds):
        if entry.round == 2:
            raise Stop

    first = Nodes(client_app(made), 3, node_config=config)
    with pytest.raises(Stop):
        runs.start(made, tmp_path / "run", connect=on_nodes(made, first), on_round=stop)
    second = Nodes(client_app(made), 3, node_config=config)  # other node numbers, nothing in Flower's memory
    result = play(made, second, tmp_path / "run")
    assert model_bytes(result) == model_bytes(whole)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_flower_directory_of_another_experiment_is_refused(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    play(made, Nodes(client_app(made), 3), tmp_path / "run")
    other = experiment(method="fedavg", rounds=1, lr=0.5)
    with pytest.raises(ConfigError, match="a new directory, or one with a run of this very experiment"):
        play(other, Nodes(client_app(other), 3), tmp_path / "run")


def claiming(samples, client):
    """The node of a client says in its update that it has so many samples."""

    def change(nodes, node, reply):
        if reply.metadata.message_type == "train" and node == nodes.node_of(client):
            frame = replace(frames.read(messages.frame_of(reply.content)), samples=samples)
            reply.content["thinwire"] = messages.frame_record(frames.write(frame))
        return reply

    return change


@pytest.mark.parametrize(("settings", "most"), [({}, 200), ({"server.max_samples": 30}, 30)])
def test_flower_node_that_claims_far_more_samples_than_the_others_is_refused(settings, most, tmp_path):
    made = experiment(method="fedavg", rounds=2, **settings)
    nodes = Nodes(client_app(made), 3)
    nodes.change = partial(claiming(2**24, 1), nodes)
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    reason = f"update: says it is of {2**24} samples, at most {most} (server.max_samples)"
    assert [entry.dropped for entry in result.rounds] == [[{"client": 1, "reason": reason}]] * 2


def test_flower_nodes_with_far_more_samples_of_their_own_than_the_server_dealt_are_believed(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    nodes = Nodes(client_app(made), 3)
    nodes.change = lambda node, reply: [reply := claiming(9000, client)(nodes, node, reply) for client in range(3)][-1]
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    assert not result.rounds[0].dropped
