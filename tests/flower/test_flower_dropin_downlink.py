"""A coded downlink: one sequence of global models, keyframes for those who need one, steps for the others."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from test_flower_dropin_feedback import change_of, constant, flat, kept, lose, of, play, stepwise
from thinapp import STC, Net, arrays_of, client_app, linear, record, run, same, thin

from thinwire.errors import ConfigError, NeedKeyframe
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.downlink import advance, first, receive
from thinwire.flower.dropin.records import unpack
from thinwire.flower.dropin.terms import Terms, codec_of
from thinwire.frame import Kind, Section, read

APP = client_app([compress(STC)], work=constant)


def frame(content):
    return read(content["arrays"]["frame"].data)


def story(net, client):
    """(kind, number of steps) of every message to a client."""
    frames = [frame(of(net, seen, client)) for seen in net.seen if net.node_of(client) in seen]
    return [(held.kind, len(held.all(Section.STEP))) for held in frames]


KEY, NONE, ONE = (Kind.KEYFRAME, 0), (Kind.STEP, 0), (Kind.STEP, 1)


def test_flower_keyframe_first_then_steps_and_none_where_nothing_is_new():
    _, strategy, net = thin(STC, app=APP, rounds=3, downlink=STC)
    assert story(net, 0) == [KEY, ONE, NONE, ONE, NONE, ONE]
    assert strategy.dropped == []
    sizes = [len(content["arrays"]["frame"].data) for content in (of(net, seen, 0) for seen in net.seen)]
    assert max(sizes[1:]) < 100 < sizes[0]
    assert sizes[2] == sizes[4] == 37


def test_flower_exact_downlink_needs_no_memory_of_anyone():
    _, strategy, net = thin("float16", rounds=3, feedback=False)
    assert story(net, 0) == 6 * [KEY]
    net.leave(0)
    net.join(0)
    run(strategy, None, net=net)
    assert strategy.dropped == []


class Watch(FedAvg):
    """Keeps how the replies differ from what it gave."""

    def __init__(self):
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.changes = []

    def configure_train(self, server_round, arrays, config, grid):
        self.given = flat(arrays_of(arrays))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        self.changes.append(flat(arrays_of(replies[0].content["arrays"])) - self.given)
        return super().aggregate_train(server_round, replies)


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_flower_nodes_train_from_the_sum_of_the_steps_and_the_strategy_sees_its_own_arrays(codec):
    """Replies are x + Δ, so what the steps lack of x is made good later, and the gap does not grow."""
    trained, inner = [], Watch()

    def watching(arrays, client):
        trained.append(flat(arrays))
        return constant(arrays, client)

    app = client_app([compress(codec, error_feedback=False)], work=watching)
    result, strategy, net = thin(codec, inner, app=app, rounds=20, clients=1, downlink={"id": "topk", "keep": 0.4})
    sent, wanted = strategy._exchange.model.sent, flat(arrays_of(result.arrays))
    assert np.array_equal(kept(net, 0)["held"], sent)
    assert not np.allclose(sent, wanted)
    assert np.abs(sent - wanted).max() < 3 * np.abs(change_of(0)).max()
    assert all(np.allclose(change, change_of(0), atol=1e-2) for change in inner.changes)
    assert np.array_equal(trained[0], flat(arrays_of(linear())))


def test_flower_node_that_lost_its_memory_asks_is_dropped_for_a_round_and_gets_a_keyframe():
    net, strategy = Net(APP, 3), Compressed(FedAvg(min_train_nodes=1), STC, downlink=STC)
    steps = stepwise(net, strategy)
    play(steps)
    net.contexts[net.node_of(1)].state.clear()
    assert play(steps) is not None
    assert [(drop.round, drop.node, drop.reason) for drop in strategy.dropped] == [
        (2, net.node_of(1), "lacks the global model that the step builds on, gets a keyframe in the next round")
    ]
    assert play(steps) is not None
    assert len(strategy.dropped) == 1
    assert story(net, 1) == [KEY, ONE, KEY]
    assert story(net, 0) == [KEY, ONE, ONE]


def test_flower_all_nodes_may_lose_their_memory_at_once():
    net, strategy = Net(APP, 2), Compressed(FedAvg(), STC, downlink=STC)
    steps = stepwise(net, strategy)
    play(steps)
    for context in net.contexts.values():
        context.state.clear()
    assert play(steps) is None
    assert play(steps) is not None
    assert len(strategy.dropped) == 2


def test_flower_node_that_was_away_gets_the_steps_that_it_missed():
    net, strategy = Net(APP, 2), Compressed(FedAvg(min_train_nodes=1), {"id": "stc", "keep": 0.02},
                                            downlink={"id": "stc", "keep": 0.02})  # fmt: skip
    steps = stepwise(net, strategy, client_app([compress({"id": "stc", "keep": 0.02})], work=constant))
    net.app = client_app([compress({"id": "stc", "keep": 0.02})], work=constant)
    play(steps)
    for _ in range(3):
        play(steps, lose(net, 1))
    assert story(net, 1) == [KEY, ONE, (Kind.STEP, 2), (Kind.STEP, 3)]  # its replies are lost: it may hold version 0
    play(steps)
    assert story(net, 1)[-1] == (Kind.STEP, 4)
    assert strategy.dropped == []
    assert np.array_equal(kept(net, 0)["held"], kept(net, 1)["held"])


def test_flower_arrays_that_change_begin_a_new_sequence():
    class Grows(FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            if server_round == 2:
                arrays["more"] = record(more=np.ones(3, np.float32))["more"]
            return arrays, metrics

    def add(arrays, client):
        return {key: x + np.float32(1) for key, x in arrays.items()}

    _, strategy, net = thin(STC, Grows(), app=client_app([compress(STC)], work=add), rounds=4, downlink=STC)
    assert story(net, 0) == [KEY, ONE, NONE, KEY, NONE, ONE, NONE, ONE]
    assert strategy.dropped == []


def test_flower_nodes_must_get_the_same_arrays_where_the_downlink_is_coded():
    class Personal(FedAvg):
        def configure_train(self, *arguments):
            messages = list(super().configure_train(*arguments))
            for message in messages:
                arrays = arrays_of(linear())
                arrays["b"] += message.metadata.dst_node_id
                message.content = RecordDict({"arrays": record(**arrays), "config": ConfigRecord()})
            return messages

    net = Net(APP, 2)
    messages = Compressed(Personal(), STC).configure_train(1, linear(), ConfigRecord(), net)
    assert len({message.content["arrays"]["frame"].data for message in messages}) == 2
    with pytest.raises(ConfigError, match=r"downlink.*None for a strategy that sends nodes different arrays"):
        Compressed(Personal(), STC, downlink=STC).configure_train(1, linear(), ConfigRecord(), net)


def test_flower_nodes_of_one_version_share_a_frame():
    net = Net(APP, 3)
    messages = Compressed(FedAvg(), STC).configure_train(1, linear(), ConfigRecord(), net)
    assert len({id(message.content["arrays"]) for message in messages}) == 1


@pytest.mark.parametrize("downlink", ["float16", "qsgd", "eden", {"id": "fedzip", "roles": False}, "float32"])
def test_flower_both_ends_hold_the_same_model_under_any_codec(downlink):
    _, strategy, net = thin("float16", app=client_app([compress("float16")]), rounds=3, downlink=downlink)
    assert strategy.dropped == []
    for client in range(3):
        assert np.array_equal(kept(net, client)["held"], strategy._exchange.model.sent)


def test_flower_half_and_double_arrays_come_in_their_dtypes():
    initial = record(half=np.full((4, 4), 0.1, np.float16), double=np.full(9, 0.1), count=np.int64(2))
    dtypes = []

    def look(arrays, client):
        dtypes.append([str(x.dtype) for x in arrays.values()])
        return {**{k: x + x.dtype.type(1) for k, x in arrays.items()}, "count": arrays["count"]}

    app = client_app([compress(STC)], work=look)
    result, _, _ = thin(STC, app=app, initial=initial, rounds=2, downlink="float16")
    assert dtypes[0] == ["float16", "float64", "int64"]
    assert [array.dtype for array in result.arrays.values()] == ["float16", "float64", "float64"]


# The two ends without a strategy.


def sequence(values, downlink="float16"):
    manifest, arrays = unpack(RecordDict({"arrays": record(w=np.asarray(values, np.float32))}))
    return Terms(manifest, codec_of("float16", "up"), codec_of(downlink, "down")), arrays


def test_flower_keyframe_after_steps_holds_their_sum_exactly():
    terms, arrays = sequence([0.1, 0.2])
    model = first(7, terms, arrays)
    held = receive(model.message(None), None).held
    for value in (0.7, -3.3, 1e-4):
        model = advance(model, terms, sequence([value, 2 * value])[1])
        held = receive(model.message(held.version), held).held
    assert held.version == 3
    assert np.array_equal(held.value.sent, model.sent)
    again = receive(model.message(None), held)
    assert np.array_equal(again.held.value.sent, model.sent)
    assert again.arrays[0].tolist() == model.sent.tolist()


def test_flower_same_arrays_make_no_step():
    terms, arrays = sequence([0.1, 0.2])
    model = first(7, terms, arrays)
    assert advance(model, terms, sequence([0.1, 0.2])[1]) is model


def test_flower_step_for_another_version_needs_a_keyframe():
    terms, arrays = sequence([0.1, 0.2])
    model = advance(first(7, terms, arrays), terms, sequence([1, 2])[1])
    with pytest.raises(NeedKeyframe):
        receive(model.message(0), None)


def test_flower_state_of_an_app_is_left_alone():
    def remember(message, context, call_next):
        context.state["mine"] = record(x=np.arange(3))
        return call_next(message, context)

    app = client_app([compress(STC), remember], work=constant)
    _, _, net = thin(STC, app=app, rounds=2, downlink=STC)
    state = net.contexts[net.node_of(0)].state
    assert set(state) == {"mine", "thinwire-arrays", "thinwire-words"}
    assert same(state["mine"], record(x=np.arange(3)))


def test_flower_empty_message_still_carries_its_round():
    """A strategy that sends no arrays, as for a first round in which nodes bring theirs."""

    class Bare(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            return [Message(RecordDict({"config": config}), node, "train") for node in grid.get_node_ids()]

    def bring(content, client):
        return RecordDict({"arrays": linear()})

    app = client_app([compress(STC)], reply=bring)
    result, strategy, net = thin(STC, Bare(fraction_evaluate=0.0), app=app, rounds=1)
    assert strategy.dropped == []
    assert np.allclose(flat(arrays_of(result.arrays)), flat(arrays_of(linear())))
    assert isinstance(net.seen[0][net.node_of(0)]["thinwire"], ArrayRecord)
