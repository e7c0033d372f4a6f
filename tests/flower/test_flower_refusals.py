"""What a node may do wrong, and what the server then says; the round goes on with the others."""

import logging
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes
from flwr.app import Context, RecordDict
from test_flower_methods import METHODS, experiment, on_nodes

from thinwire import __version__
from thinwire import frame as frames
from thinwire.data import Split
from thinwire.errors import ConfigError, TrainingError
from thinwire.flower import client_app, messages
from thinwire.flower.server import play
from thinwire.flower.settings import experiment_of
from thinwire.runtime import faults
from thinwire.runtime import run as runs


def tampered(made, tmp_path, change):
    """The last line of a run in which the node of client 1 tampers with its answers from round 2 on."""
    nodes = Nodes(client_app(made), 3)
    seen = []

    def reply_changed(node, reply):
        if reply.metadata.message_type != "train" or node != nodes.node_of(1):
            return reply
        seen.append(messages.frame_of(reply.content))
        if len(seen) > 1:
            reply.content["thinwire"] = messages.frame_record(change(seen))
        return reply

    nodes.change = reply_changed
    return runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds[-1]


def of_nan(frame):
    """The frame with NaN in place of every number, checksum and all."""
    honest = frames.read(frame)
    ((sort, payload),) = honest.sections
    nan = np.full(len(payload) // 4, np.nan, np.float32).tobytes()
    return frames.write(replace(honest, sections=((sort, nan),)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda seen: faults.of_another_layout(seen[-1]), "the two ends differ in model"),
        (lambda seen: of_nan(seen[-1]), "update: holds NaN or infinite entries"),
        (lambda seen: faults.mutated(seen[-1], np.random.default_rng(0)), "frame: "),
        (lambda seen: seen[-1][:-9] + bytes([seen[-1][-9] ^ 1]) + seen[-1][-8:], "checksum"),
        (lambda seen: seen[0], "round"),
        (lambda seen: seen[-1][:30], "frame"),
        (lambda seen: b"", "frame"),
    ],
)
def test_flower_frame_that_is_not_what_was_asked_is_dropped_by_name(change, reason, tmp_path):
    last = tampered(experiment(method="fedavg", rounds=2), tmp_path, change)
    assert [drop["client"] for drop in last.dropped] == [1]
    assert reason in last.dropped[0]["reason"]
    assert last.clients == 2


def test_flower_round_goes_on_without_a_broken_frame_and_its_node_with_its_state(tmp_path):
    made = experiment(**METHODS["fedavg + fedzip"])
    seen = []

    def replayed(node, reply):
        if reply.metadata.message_type == "train" and node == nodes.node_of(1):
            seen.append(messages.frame_of(reply.content))
            if len(seen) == 3:
                reply.content["thinwire"] = messages.frame_record(seen[0])
        return reply

    nodes = Nodes(client_app(made), 3)
    nodes.change = replayed
    rounds = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds
    assert [entry.clients for entry in rounds] == [3, 3, 2, 3]
    assert rounds[2].dropped == [{"client": 1, "reason": "frame: of round 0, this is round 2"}]


@pytest.mark.parametrize(("rule", "tries"), [("skip", [1, 1, 1]), ("repeat", [1, 2, 1])])
def test_flower_round_without_quorum_is_skipped_or_repeated(rule, tries, tmp_path):
    cohort = {"cohort.min_replies": 3, "cohort.without_quorum": rule, "cohort.tries": 3}
    made = experiment(method="fedavg", rounds=3, **cohort)
    answers = []

    def broken_once(node, reply):
        if reply.metadata.message_type == "train" and node == nodes.node_of(1):
            answers.append(node)
            if len(answers) == 2:
                reply.content["thinwire"] = messages.frame_record(b"")
        return reply

    nodes = Nodes(client_app(made), 3)
    nodes.change = broken_once
    rounds = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds
    assert [entry.tries for entry in rounds] == tries
    assert [entry.clients for entry in rounds] == ([3, 0, 3] if rule == "skip" else [3, 3, 3])
    assert rounds[1].skipped == ("2 updates, cohort.min_replies is 3" if rule == "skip" else None)
    reasons = [drop["reason"] for drop in rounds[1].dropped]
    assert reasons[0].startswith("frame: 0 bytes")
    assert reasons[1:] == ["not merged: 2 updates, cohort.min_replies is 3"] * 2


def test_flower_server_simulates_no_faults(tmp_path):
    made = experiment(method="fedavg", rounds=1, **{"faults.drop": 0.2})
    with pytest.raises(ConfigError, match=r"faults = {'drop': 0\.2}: none: they are simulated"):
        play(made, Nodes(client_app(made), 3), tmp_path / "run")


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), -1e-9, 1e308, 3, "much"])
@pytest.mark.parametrize("name", ["loss", "client_train"])
def test_flower_number_that_cannot_be_is_left_out_and_the_update_counts(name, wrong, tmp_path):
    made = experiment(method="fedavg", rounds=2)
    nodes = Nodes(client_app(made), 3)

    def tamper(node, reply):
        if reply.metadata.message_type == "train" and node == nodes.node_of(1):
            words = next(iter(reply.content.config_records.values()))
            del words[f"metric.{name}"]
            if wrong is not None:
                words[f"metric.{name}"] = wrong
        return reply

    nodes.change = tamper
    rounds = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds
    assert [entry.clients for entry in rounds] == [3, 3]
    assert not rounds[1].dropped
    assert 0 < rounds[1].train_loss < 10
    assert 0 < rounds[1].seconds["client_train"] < 60


def test_flower_one_node_ends_no_run(tmp_path):
    made = experiment(method="fedavg", rounds=2)
    nodes = Nodes(client_app(made), 3)

    def give_up(node, reply):
        if reply.metadata.message_type == "train" and node == nodes.node_of(1):
            words = next(iter(reply.content.config_records.values()))
            words["status"], words["reason"] = "stop", "client 1: the loss is no longer finite"
        return reply

    nodes.change = give_up
    rounds = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds
    assert [entry.clients for entry in rounds] == [2, 2]
    assert rounds[0].dropped == [{"client": 1, "reason": "client 1: the loss is no longer finite"}]


def test_flower_update_above_the_norm_bound_is_dropped_by_name(tmp_path):
    made = experiment(method="fedavg", rounds=1, **{"server.max_update_norm": 1e-6})
    nodes = Nodes(client_app(made), 3)
    with pytest.raises(TrainingError, match=r"client 0: update: norm .* server\.max_update_norm is 1e-06"):
        runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))


def refused(made, caplog, tmp_path, app=None, **config):
    made = made.model_copy(update={"cohort": made.cohort.model_copy(update={"join_timeout": 0.0})})
    nodes = Nodes(app or client_app(made), 2)
    nodes.join(2, **config)
    with caplog.at_level(logging.WARNING, logger="flwr.thinwire"):
        result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    assert result.rounds[0].clients == 2
    (line,) = [record.getMessage() for record in caplog.records if "takes no part" in record.getMessage()]
    return line


@pytest.mark.parametrize("number", [7, -1, "two", True])
def test_flower_node_without_a_partition_of_the_experiment_is_named(number, caplog, tmp_path):
    line = refused(experiment(method="fedavg", rounds=1), caplog, tmp_path, **{"partition-id": number})
    assert "partition-id" in line
    assert "0 to 2" in line


def test_flower_node_with_another_experiment_is_told_at_its_first_message(caplog, tmp_path):
    made, other = experiment(method="fedavg", rounds=1), experiment(method="fedavg", rounds=1, lr=0.7)
    right, wrong = client_app(made), client_app(other)

    def app(message, context):
        return (wrong if context.node_config["partition-id"] == 2 else right)(message, context)

    assert "its experiment is not the server's" in refused(made, caplog, tmp_path, app)


def test_flower_node_with_another_version_is_told_at_its_first_message():
    made = experiment(method="fedavg", rounds=1)
    asked = messages.hello(1, 0, 10)
    asked.content["thinwire-words"]["version"] = "0.0.9"
    answer = client_app(made)(asked, Context(0, 1, {"partition-id": 0}, RecordDict(), {}))
    assert answer.content["thinwire-words"]["refused"] == f"it has thinwire {__version__}, the server 0.0.9"


def test_flower_node_trains_on_data_of_its_own(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    draw = np.random.default_rng(0)

    def own(context):
        count = 5 + context.node_config["partition-id"]
        return Split(draw.normal(size=(count, 6)).astype(np.float32), np.zeros(count, np.int64))

    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, Nodes(client_app(made, data=own), 3)))
    assert result.rounds[0].clients == 3

    def of_another_shape(context):
        return Split(np.zeros((4, 9), np.float32), np.zeros(4, np.int64))

    nodes = Nodes(client_app(made, data=of_another_shape), 3)
    with pytest.raises(TrainingError, match="own data: samples of shape"):
        runs.start(made, tmp_path / "other", connect=on_nodes(made, nodes))


def test_flower_run_config_goes_on_top_of_the_file(tmp_path):
    (tmp_path / "thinwire.toml").write_text("rounds = 3\n[method]\nname = 'fedavg'\n")
    changed = experiment_of(tmp_path / "thinwire.toml", {"rounds": 5, "method.name": "ssfl", "out": "x"})
    assert (changed.rounds, changed.method["name"]) == (5, "ssfl")
    with pytest.raises(ConfigError, match="round_count"):
        experiment_of(tmp_path / "thinwire.toml", {"round_count": 5})
