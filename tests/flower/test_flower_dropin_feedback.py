"""Error feedback: what an update loses is in the next one, once the server has accepted the one that lost it."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from thinapp import STC, Net, arrays_of, client_app, linear, run, thin

from thinwire.codecs import Context, from_config
from thinwire.errors import ConfigError
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.coded import decode
from thinwire.frame import Section, read
from thinwire.layout import Layout

CODEC = from_config(STC)
LAYOUT = Layout.of({"w": (12, 5), "b": (5,)})


def constant(arrays, client):
    """Every round the same change of every node."""
    draw = np.random.default_rng(client)
    return {key: x + draw.standard_normal(x.shape).astype(np.float32) for key, x in arrays.items()}


def change_of(client):
    return flat(constant({key: np.zeros_like(x) for key, x in arrays_of(linear()).items()}, client))


def flat(arrays):
    return np.concatenate([arrays["w"].ravel(), arrays["b"].ravel()])


def sent(content):
    """The change that a reply's frame holds."""
    values = read(content["thinwire"]["frame"].data).one(Section.VALUES)
    return decode(values[2:], CODEC, Context(LAYOUT)).values


def kept(net, client):
    """{name: vector} of a node's memory."""
    state = net.contexts[net.node_of(client)].state
    return {key: array.numpy() for key, array in state.get("thinwire-arrays", {}).items()}


def of(net, contents, client):
    return contents[net.node_of(client)]


APP = client_app([compress(STC)], work=constant)


def test_flower_residual_is_all_that_was_not_sent():
    rounds = 5
    _, _, net = thin(STC, app=APP, rounds=rounds)
    for client in range(3):
        told = sum(sent(of(net, heard, client)) for heard in net.heard[::2])
        memory = kept(net, client)
        assert set(memory) == {"residual"}  # the evaluation's message said that the last update was accepted
        assert np.allclose(told + memory["residual"], rounds * change_of(client), atol=1e-5)


def test_flower_a_share_of_what_was_not_sent_is_kept():
    app = client_app([compress(STC, error_feedback=0.5)], work=constant)
    _, _, net = thin(STC, app=app, rounds=1)
    for client in range(3):
        left = change_of(client) - sent(of(net, net.heard[0], client))
        assert np.allclose(kept(net, client)["residual"], 0.5 * left, atol=1e-5)


@pytest.mark.parametrize("wrong", [2, -0.1, float("nan"), "yes", None])
def test_flower_a_share_is_a_number_from_0_to_1(wrong):
    with pytest.raises(ConfigError, match=r"compress\.error_feedback = .*: True, False, or a share from 0 to 1"):
        compress(STC, error_feedback=wrong)


def test_flower_without_error_feedback_nothing_is_kept():
    _, _, net = thin(STC, rounds=2, feedback=False)
    assert all(not context.state for context in net.contexts.values())


def test_flower_lossless_codec_keeps_nothing():
    _, _, net = thin("float32", rounds=2)
    assert all(not context.state for context in net.contexts.values())


def test_flower_feedback_goes_further_than_none_at_the_same_density():
    plain, _ = run(FedAvg(), client_app(work=constant), rounds=20)
    distances = []
    for feedback in (True, False):
        app = client_app([compress(STC, error_feedback=feedback)], work=constant)
        result, _, _ = thin(STC, app=app, rounds=20)
        distances.append(np.linalg.norm(flat(arrays_of(result.arrays)) - flat(arrays_of(plain.arrays))))
    assert distances[0] < 0.5 * distances[1]


def stepwise(net, strategy, app=APP, initial=None):
    """One training round after the other, by hand."""
    arrays, number = initial or linear(), 0
    while True:
        number += 1
        messages = strategy.configure_train(number, arrays, ConfigRecord(), net)
        yield net.send_and_receive(messages)
        replies = yield
        got, _ = strategy.aggregate_train(number, replies)
        arrays = arrays if got is None else got
        yield got


def play(steps, change=lambda replies: replies):
    """A round in which replies are changed on the way. -> the aggregate"""
    replies = next(steps)
    next(steps)
    return steps.send(change(replies))


def lose(net, client):
    return lambda replies: [r for r in replies if r.metadata.src_node_id != net.node_of(client)]


def test_flower_reply_that_is_lost_loses_nothing_of_the_residual():
    net, strategy = Net(APP, 2), Compressed(FedAvg(min_train_nodes=1), STC)
    steps = stepwise(net, strategy)
    play(steps)
    before = sent(of(net, net.heard[0], 1))
    play(steps, lose(net, 1))
    lost = kept(net, 1)
    assert np.allclose(lost["residual"], change_of(1) - before, atol=1e-6)
    play(steps)
    again = kept(net, 1)
    assert np.array_equal(again["residual"], lost["residual"])  # of before the round that was lost
    assert np.array_equal(sent(of(net, net.heard[1], 1)), sent(of(net, net.heard[2], 1)))
    assert np.allclose(again["pending"], 2 * change_of(1) - before - sent(of(net, net.heard[2], 1)), atol=1e-5)
    words = [of(net, seen, 1)["thinwire-round"] for seen in net.seen]
    assert [dict(word) for word in words] == [
        {"round": 1, "accepted": -1}, {"round": 2, "accepted": 1}, {"round": 3, "accepted": 1}
    ]  # fmt: skip


def test_flower_reply_that_is_refused_loses_nothing_of_the_residual():
    net, strategy = Net(APP, 2), Compressed(FedAvg(min_train_nodes=1), STC)
    steps = stepwise(net, strategy)

    def flip(replies):
        array = replies[1].content["thinwire"]["frame"]
        array.data = array.data[:-1] + bytes([array.data[-1] ^ 1])
        return replies

    play(steps, flip)
    assert [(drop.node, drop.round) for drop in strategy.dropped] == [(net.node_of(1), 1)]
    play(steps)
    assert of(net, net.seen[1], 1)["thinwire-round"]["accepted"] == -1
    assert of(net, net.seen[1], 0)["thinwire-round"]["accepted"] == 1
    assert set(kept(net, 1)) == {"pending"}
    assert set(kept(net, 0)) == {"residual", "pending"}


def test_flower_round_that_the_strategy_makes_nothing_of_is_not_accepted():
    class Never(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    net, strategy = Net(APP, 2), Compressed(Never(), STC)
    steps = stepwise(net, strategy)
    assert play(steps) is None
    play(steps)
    assert of(net, net.seen[1], 0)["thinwire-round"]["accepted"] == -1


def test_flower_app_that_fails_keeps_its_residual():
    failing = []

    def moody(arrays, client):
        if failing:
            raise RuntimeError("out of memory")
        return constant(arrays, client)

    net, strategy = Net(client_app([compress(STC)], work=moody), 2), Compressed(FedAvg(), STC)
    steps = stepwise(net, strategy)
    play(steps)
    failing.append(True)
    assert play(steps) is None
    failing.clear()
    play(steps)
    assert np.allclose(kept(net, 0)["residual"], change_of(0) - sent(of(net, net.heard[0], 0)), atol=1e-6)
    assert strategy.dropped == []  # an error of the app's own is the strategy's business


def test_flower_error_reply_of_the_app_passes_as_it_is():
    def refuse(message, context):
        return Message(Error(code=0, reason="no data today"), reply_to=message)

    net, strategy = Net(APP, 2), Compressed(FedAvg(), STC)
    message = next(iter(strategy.configure_train(1, linear(), ConfigRecord(), net)))
    reply = compress(STC)(message, net.contexts[net.node_of(0)], refuse)
    assert reply.error.reason == "no data today"


def test_flower_residual_of_other_arrays_is_not_added():
    """An app that begins to train one more array starts anew."""
    grown = []

    def growing(content, client):
        names = ["w", "b"] if grown else ["w"]
        arrays = arrays_of(content["arrays"])
        held = {key: Array(arrays[key] + np.float32(0.5)) for key in names}
        content["arrays"].clear()
        content["arrays"].update(held)
        return RecordDict({"arrays": content["arrays"]})

    class Keep(FedAvg):
        def aggregate_train(self, server_round, replies):
            self.replies = [arrays_of(reply.content["arrays"]) for reply in replies]
            return linear(), None

    inner = Keep()
    net, strategy = Net(client_app([compress(STC)], reply=growing), 2), Compressed(inner, STC)
    steps = stepwise(net, strategy)
    play(steps)
    assert list(inner.replies[0]) == ["w"]
    grown.append(True)
    play(steps)
    assert list(inner.replies[0]) == ["w", "b"]
    assert np.count_nonzero(flat(inner.replies[0]) != flat(arrays_of(linear()))) == 7  # a tenth of 65
    assert kept(net, 0)["residual"].shape == (60,)
    assert kept(net, 0)["pending"].shape == (65,)


def test_flower_second_run_forgets_the_first():
    net = Net(APP, 2)
    run(Compressed(FedAvg(), STC), None, rounds=2, net=net)
    first = sent(of(net, net.heard[0], 0))
    run(Compressed(FedAvg(), STC), None, rounds=1, net=net)
    assert np.array_equal(sent(of(net, net.heard[4], 0)), first)


@pytest.mark.parametrize("codec", ["qsgd", "eden", {"id": "count-sketch", "width": 0.5}, "drive", "terngrad"])
def test_flower_codecs_with_shared_randomness_decode_what_was_coded(codec):
    """Were the seeds of the two ends different, the residual would not be what is missing."""
    app = client_app([compress(codec)], work=constant)
    result, strategy, net = thin(codec, app=app, rounds=1, clients=2)
    assert strategy.dropped == []
    weights = np.array([40, 41]) / 81
    lost = sum(weight * kept(net, client)["residual"] for client, weight in enumerate(weights))
    wanted = flat(arrays_of(linear())) + sum(weight * change_of(client) for client, weight in enumerate(weights))
    assert np.allclose(flat(arrays_of(result.arrays)) + lost, wanted, atol=1e-4)
