"""What a node may do wrong, and what the server then says; the round goes on with the others."""

import logging

import numpy as np
import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes
from flwr.app import Context, RecordDict
from test_flower_methods import experiment, on_nodes

from thinwire import __version__
from thinwire.data import Split
from thinwire.errors import ConfigError, TrainingError
from thinwire.flower import client_app, messages
from thinwire.flower.settings import experiment_of
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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
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
