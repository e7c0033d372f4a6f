"""The pair around a linear model: what comes out, what it costs, and what the app sees of it."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from thinapp import STC, Net, arrays_of, client_app, linear, loss, record, run, same, thin

from thinwire.codecs import STC as Sparse
from thinwire.codecs import Float16, Thin, from_config
from thinwire.errors import ConfigError
from thinwire.flower.dropin import Compressed, compress

COUNTERS = {"thinwire-up-bytes", "thinwire-up-dense-bytes", "thinwire-down-bytes", "thinwire-down-dense-bytes"}
DENSE = 4 * (12 * 5 + 5)


def without(metrics):
    return {round: {k: v for k, v in kept.items() if k not in COUNTERS} for round, kept in metrics.items()}


def test_flower_float32_is_the_uncompressed_run_bit_for_bit():
    plain, _ = run(FedAvg(), client_app(), rounds=4)
    result, strategy, _ = thin("float32", rounds=4)
    assert same(result.arrays, plain.arrays)
    assert without(result.train_metrics_clientapp) == without(plain.train_metrics_clientapp)
    assert without(result.evaluate_metrics_clientapp) == without(plain.evaluate_metrics_clientapp)
    assert strategy.dropped == []


@pytest.mark.parametrize(
    ("codec", "most"), [("float16", 1e-2), ("thin", 0.1), (STC, 0.6), ({"id": "fedzip", "roles": False}, 0.9)]
)
def test_flower_lossy_codec_learns_and_costs_less(codec, most):
    start = loss(arrays_of(linear()), 0)
    result, strategy, _ = thin(codec, rounds=8)
    plain, _ = run(FedAvg(), client_app(), rounds=8)
    reached, possible = loss(arrays_of(result.arrays), 0), loss(arrays_of(plain.arrays), 0)
    assert reached - possible < most * (start - possible)
    assert 0 < strategy.total.up_bytes < strategy.total.up_dense_bytes == 8 * 3 * DENSE


def test_flower_codec_as_id_configuration_or_codec():
    assert Compressed(FedAvg(), "float16").codec == Float16()
    assert Compressed(FedAvg(), STC).codec == from_config(STC) == Sparse(keep=0.1)
    assert Compressed(FedAvg(), Sparse(keep=0.1)).codec == Sparse(keep=0.1)
    assert compress(STC) == compress(Sparse(keep=0.1))


def test_flower_thin_is_the_codec_unless_one_is_given():
    assert Compressed(FedAvg()).codec == Thin()
    assert compress() == compress("thin")


@pytest.mark.parametrize("wrong", ["float33", {"id": "mask"}, {"id": "stc", "kep": 1}, Sparse, 3])
def test_flower_wrong_codec_is_named(wrong):
    for build in (compress, lambda codec: Compressed(FedAvg(), codec)):
        with pytest.raises(ConfigError):
            build(wrong)
    with pytest.raises(ConfigError):
        Compressed(FedAvg(), "float16", downlink=wrong)


@pytest.mark.parametrize("norm", [0, -1.0, float("nan")])
def test_flower_norm_must_be_above_zero(norm):
    with pytest.raises(ConfigError, match="max_update_norm"):
        Compressed(FedAvg(), "float16", max_update_norm=norm)


def test_flower_strategy_with_a_loop_of_its_own_is_refused():
    class Own(FedAvg):
        def start(self, *args, **kwargs):
            return super().start(*args, **kwargs)

    with pytest.raises(ConfigError, match=r"strategy = 'Own'.*start\(\).*derive from Compressed"):
        Compressed(Own(), "float16")


# What the app sees.


def echo(content, client):
    """What the app got, sent back."""
    return RecordDict(dict(content.array_records))


def everything():
    """Arrays of all kinds under awkward names."""
    draw = np.random.default_rng(3)
    return ArrayRecord({
        **record(**{
            "float16": draw.standard_normal((3, 4)).astype(np.float16),
            "float32": draw.standard_normal((2, 3, 4)).astype(np.float32),
            "float64": draw.standard_normal(7),
            "scalar": np.float32(0.7),
            "counter": np.int64(2**60 + 1),
            "empty": np.zeros((0, 5), np.float32),
            "none": np.zeros((3, 0), np.int8),
            "bool": draw.random((2, 9)) < 0.5,
            "bytes": draw.integers(0, 255, 11).astype(np.uint8),
            "complex": draw.standard_normal(3) + 1j,
            "columns": np.asfortranarray(draw.standard_normal((4, 6)).astype(np.float32)),
            "zoë/ {}\n": np.ones(2, np.float32),
        })
    })  # fmt: skip


class Watch:
    """A mod behind ours that keeps what reaches the app."""

    def __init__(self):
        self.contents = []

    def __call__(self, message, context, call_next):
        self.contents.append(message.content)
        return call_next(message, context)


@pytest.mark.parametrize("codec", ["float32", "float16", STC])
def test_flower_app_gets_every_array_exactly_and_its_own_records_untouched(codec):
    watch, initial = Watch(), everything()
    app = client_app([compress(codec), watch], reply=echo)
    result, strategy, _ = thin(codec, app=app, initial=initial, rounds=1, clients=2)
    seen = watch.contents[0]
    assert list(seen) == ["arrays", "config"]
    assert seen["config"] == ConfigRecord({"server-round": 1})
    assert list(seen["arrays"]) == list(initial)
    for key, array in initial.items():
        got, sent = seen["arrays"][key].numpy(), array.numpy()
        assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
    assert strategy.dropped == []
    for key, array in initial.items():
        assert np.allclose(result.arrays[key].numpy(), array.numpy(), rtol=1e-2)


class Records(FedAvg):
    """Sends several ArrayRecords and takes them back; keeps the replies."""

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            heads = ArrayRecord(dict(self.heads))
            message.content = RecordDict({"first": heads, **message.content, "nothing": ArrayRecord()})
        return messages

    def aggregate_train(self, server_round, replies):
        self.replies = [reply.content for reply in replies]
        return None, None


def test_flower_several_records_travel_as_one_frame_and_come_back_as_they_were():
    strategy = Records()
    strategy.heads = record(**{"a/b": np.ones(3, np.float32), "int": np.arange(4)})

    def reply(content, client):
        heads = arrays_of(content["first"])
        return RecordDict({
            "extra": record(new=np.arange(3.0), count=np.int32(client)),
            "first": record(**{"a/b": heads["a/b"] + np.float32(1), "int": heads["int"] * 2}),
            "nothing": ArrayRecord(),
            "arrays": record(w=content["arrays"]["w"].numpy().astype(np.float16), b=np.zeros(4)),
        })  # fmt: skip

    _, wrapped, net = thin("float16", strategy, rounds=1, app=client_app([compress("float16")], reply=reply))
    assert wrapped.dropped == []
    for content in net.seen[0].values():
        assert [(name, list(held)) for name, held in content.array_records.items()] == [("first", ["frame"])]
    back = strategy.replies[1]
    assert list(back.array_records) == ["extra", "first", "nothing", "arrays"]
    assert dict(back["metrics"]) == {"num-examples": 41, "loss": 1.0}
    assert [str(array.dtype) for array in back["extra"].values()] == ["float64", "int32"]
    assert back["extra"]["new"].numpy().tolist() == [0, 1, 2]
    assert back["first"]["a/b"].numpy().tolist() == [2, 2, 2]
    assert back["first"]["int"].numpy().tolist() == [0, 2, 4, 6]
    assert back["nothing"] == ArrayRecord()
    assert back["arrays"]["w"].numpy().dtype == np.float16
    assert back["arrays"]["b"].numpy().shape == (4,)


def test_flower_whole_numbers_averaged_to_floats_go_back_as_whole_numbers():
    """As BatchNorm's counters do: int64 in round 1, then their mean, float64; never coded, they would drown the rest"""

    def count(content, client):
        arrays = arrays_of(content["arrays"])
        arrays["steps"] = np.int64(arrays["steps"]) + 100 + client
        return RecordDict({"arrays": record(**{**arrays, "w": arrays["w"] + np.float32(0.01)})})

    initial = record(w=np.zeros((20, 20), np.float32), steps=np.int64(0))
    app = client_app([compress(STC)], reply=count)
    result, _, _ = thin(STC, app=app, initial=initial, rounds=3, downlink=STC)
    assert np.isclose(result.arrays["steps"].numpy(), 303, atol=3)
    assert 0 < np.abs(result.arrays["w"].numpy()).max() < 1


def test_flower_evaluate_reply_may_hold_arrays():
    app = client_app([compress("float16")])

    @app.evaluate("arrays")
    def evaluate(message, context):
        return Message(RecordDict({**message.content.array_records, "metrics": MetricRecord({"num-examples": 1})}),
                       reply_to=message)  # fmt: skip

    class Evaluating(FedAvg):
        def configure_evaluate(self, *arguments):
            messages = list(super().configure_evaluate(*arguments))
            for message in messages:
                message.metadata.message_type = "evaluate.arrays"
            return messages

        def aggregate_evaluate(self, server_round, replies):
            self.replies = [reply.content["arrays"] for reply in replies]
            return super().aggregate_evaluate(server_round, replies)

    strategy = Evaluating()
    result, _, net = thin("float16", strategy, rounds=1, app=app, clients=2)
    assert all(same(held, result.arrays) for held in strategy.replies)
    assert result.evaluate_metrics_clientapp[1]["thinwire-up-bytes"] == 2 * (37 + 6 + 4)  # all as received
    assert all("pending" not in context.state.get("thinwire-arrays", {}) for context in net.contexts.values())


@pytest.mark.parametrize("kind", ["query", "query.names"])
def test_flower_other_messages_pass_untouched(kind):
    content, mod = RecordDict({"arrays": linear()}), compress(STC)
    message = Message(content, dst_node_id=1, message_type=kind)
    assert mod(message, None, lambda message, context: message) is message
    assert message.content is content

    class Asking(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            return [Message(RecordDict({"arrays": arrays}), node, kind) for node in grid.get_node_ids()]

        def aggregate_train(self, server_round, replies):
            self.replies = list(replies)
            return None, None

    strategy = Asking()
    wrapped = Compressed(strategy, STC)
    net = Net(client_app([compress(STC)]), 2)
    messages = wrapped.configure_train(1, linear(), ConfigRecord(), net)
    assert all(same(message.content["arrays"], linear()) for message in messages)
    wrapped.aggregate_train(1, [Message(message.content, reply_to=message) for message in messages])
    assert len(strategy.replies) == 2
    assert wrapped.total.down_bytes == 0


# Counters.


def test_flower_counters_are_sums_of_frames_in_the_aggregate_once():
    result, strategy, net = thin(STC, rounds=2)
    replies = [result.train_metrics_clientapp[round] for round in (1, 2)]
    assert all(set(kept) == COUNTERS | {"loss", "thinwire-up-nmse"} for kept in replies)
    down = [sum(len(content["arrays"]["frame"].data) + content["thinwire-round"].count_bytes()
                for content in seen.values()) for seen in net.seen]  # fmt: skip
    evaluated = [result.evaluate_metrics_clientapp[round] for round in (1, 2)]
    assert [kept["thinwire-down-bytes"] for kept in (replies[0], evaluated[0], replies[1], evaluated[1])] == down
    assert [kept["thinwire-down-dense-bytes"] for kept in replies + evaluated] == 4 * [3 * DENSE]
    assert [kept["thinwire-up-dense-bytes"] for kept in replies + evaluated] == [3 * DENSE, 3 * DENSE, 0, 0]
    assert strategy.total.down_bytes == sum(down)
    up = [sum(len(content["thinwire"]["frame"].data) for content in heard.values()) for heard in net.heard[::2]]
    assert [kept["thinwire-up-bytes"] for kept in replies] == up
    assert strategy.total.up_bytes == sum(up)


def test_flower_update_costs_its_payload_and_46_bytes():
    result, _, _ = thin("float16", rounds=1, clients=2)
    assert result.train_metrics_clientapp[1]["thinwire-up-bytes"] == 2 * (46 + DENSE // 2)


def test_flower_round_is_logged_once(caplog):
    caplog.set_level("INFO", logger="flwr")
    _, strategy, _ = thin(STC, rounds=2, clients=2)
    lines = [entry.getMessage() for entry in caplog.records if "thinwire:" in entry.getMessage()]
    told = [line for line in lines if ", train: " in line]
    assert len(told) == 2
    assert f"so far {strategy.total}" in [line for line in lines if ", evaluate: " in line][-1]
    assert [line for line in lines if "up {" in line] == [
        '\t└──> thinwire: up {"id":"stc","keep":0.1,"positions":{"id":"gaps"}} | down exact'
    ]
    assert lines[-1] == f"thinwire: {strategy.total}; 0 replies dropped"


def test_flower_rounds_without_messages_are_not_counted():
    result, strategy, _ = thin("float16", FedAvg(fraction_evaluate=0.0), rounds=2)
    assert result.evaluate_metrics_clientapp == {}
    assert strategy.total.down_dense_bytes == 2 * 3 * DENSE


def test_flower_second_start_is_a_new_run():
    _, strategy, net = thin(STC, rounds=2)
    spent, again = strategy.total, run(strategy, None, rounds=2, net=net)[0]
    assert strategy.total == spent
    assert same(again.arrays, thin(STC, rounds=2)[0].arrays)
