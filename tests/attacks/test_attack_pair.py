"""Who attacks: one node of an app on the Flower pair, the first whose reply is aggregated. What it sends: frames that
are valid, with arrays, metrics or numbers of samples that spoil the aggregate or make the strategy raise. What must
happen: the node is dropped by name in every round, and the model is, bit for bit, that of a run without its replies.
"""

import sys
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")
sys.path.insert(0, str(Path(__file__).parents[1] / "flower"))  # where `thinapp` is

from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, FedTrimmedAvg, Krum, QFedAvg
from thinapp import STC, Net, client_app, descend, record, run, same

from thinwire import frame as frames
from thinwire.errors import ConfigError, TrainingError
from thinwire.flower import Compressed, compress
from thinwire.frame import Section

W, B = (12, 5), (5,)


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Messages are made in the name of a task, which Flower's runtime sets."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


def attacked(arrays=None, metrics=None, strategy=None, clients=4, rounds=3, codec="float32", **options):
    """A run whose client 0 sends other arrays than it has learnt, or a record that `metrics` has changed.

    -> result, the wrapped strategy, the attacker's node
    """

    def work(held, client):
        return arrays(descend(held, client)) if arrays and client == 0 else descend(held, client)

    net = Net(client_app([compress(codec, error_feedback=False)], work=work), clients)

    def change(node, reply):
        if metrics and node == net.node_of(0):
            metrics(reply.content)
        return reply

    net.change = change
    wrapped = Compressed(strategy or FedAvg(), codec, **options)
    result, _ = run(wrapped, None, rounds=rounds, net=net)
    return result, wrapped, net.node_of(0)


def without(strategy=None, clients=4, rounds=3, codec="float32", **options):
    """The same run when nothing is heard of client 0."""
    net = Net(client_app([compress(codec, error_feedback=False)]), clients)
    net.unheard = {net.node_of(0)}
    return run(Compressed(strategy or FedAvg(), codec, **options), None, rounds=rounds, net=net)[0]


def check_harmless(arrays=None, metrics=None, build=FedAvg, steps=1, **options):
    """-> the reason. steps: of a round in which the attacker is dropped, training and evaluation."""
    result, strategy, node = attacked(arrays, metrics, build(), **options)
    assert same(result.arrays, without(build(), **options).arrays)
    assert [(d.round, d.node) for d in strategy.dropped] == [(r, node) for r in (1, 2, 3) for _ in range(steps)]
    assert all(drop.reason.isprintable() and len(drop.reason) < 300 for drop in strategy.dropped)
    assert len({drop.reason for drop in strategy.dropped}) <= steps
    return strategy.dropped[0].reason


# Arrays that are not those of the others.

ARRAYS = {
    "spread": lambda new: {**new, "w": np.full((1, 1), 9, np.float32)},
    "turned": lambda new: {**new, "w": new["w"].T},
    "flat": lambda new: {**new, "w": new["w"].ravel()},
    "complex": lambda new: {**new, "w": new["w"].astype(np.complex64)},
    "half": lambda new: {**new, "w": new["w"].astype(np.float16)},
    "whole": lambda new: {**new, "w": np.full(W, 2**62, np.int64)},
    "named otherwise": lambda new: {"v": new["w"], "b": new["b"]},
    "fewer": lambda new: {"w": new["w"]},
    "more": lambda new: {**new, "\x1b[2J\n" + 200 * "v": new["w"]},
    "turned round": lambda new: {"b": new["b"], "w": new["w"]},
    "none": lambda new: {},
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("build", [FedAvg, FedAdam, FedMedian, lambda: FedAvgM(server_momentum=0.5)])
def test_flower_arrays_unlike_those_of_the_others_are_dropped(name, build):
    assert check_harmless(ARRAYS[name], build=build).startswith("array")


def test_flower_reason_says_what_is_odd():
    usual = "in most replies of the round"
    assert check_harmless(ARRAYS["spread"]) == f"array 'arrays/w' is float32 (1, 1), {usual} float32 (12, 5)"
    assert check_harmless(ARRAYS["fewer"]) == f"array 'arrays/b' is missing, {usual} float32 (5,)"
    assert check_harmless(ARRAYS["turned round"]) == "arrays are in another order than in most replies of the round"


def no_arrays(content):
    content.pop("thinwire", None)


def test_flower_reply_without_arrays_is_dropped():
    assert "'arrays' is missing" in check_harmless(metrics=no_arrays)


@pytest.mark.parametrize("codec", ["float32", STC])
@pytest.mark.parametrize("build", [FedAvg, FedAdam])
@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e25])
def test_flower_one_huge_number_is_dropped(value, build, codec):
    """It is finite, and so is the mean, but no node can train from it, and Adam's second moment is infinite."""

    def huge(new):
        new["w"][3, 2] = value
        return new

    assert "at most 1e+18 allowed" in check_harmless(huge, build=build, codec=codec)


def test_flower_numbers_that_the_model_has_are_no_leap():
    start = record(w=np.full(4, 1e30, np.float32), m=np.array([0, -inf], np.float32))
    app = client_app([compress("float16")], work=lambda held, client: {**held, "w": held["w"] + np.float32(1e17)})
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), "float16")
    run(strategy, None, initial=start, net=Net(app, 3))
    assert strategy.dropped == []


# Claims and metrics.


def claim(value):
    def change(content):
        content["metrics"]["num-examples"] = value

    return change


@pytest.mark.parametrize("value", [nan, inf, -inf, -1.0, -81, 0, 0.0, [40], [], 2**24, 1e308])
@pytest.mark.parametrize("build", [FedAvg, FedMedian])
def test_flower_number_of_samples_that_cannot_be_is_dropped(value, build):
    reason = check_harmless(metrics=claim(value), build=build, steps=2)
    assert reason.startswith("metric 'num-examples'")


def test_flower_claim_is_bounded_by_the_median_of_the_round_or_by_the_user():
    reason = check_harmless(metrics=claim(500), steps=2, codec=STC)
    assert reason == "metric 'num-examples' = 500: at most 425 allowed, 10 times the median of the round"
    assert attacked(metrics=claim(400))[1].dropped == []
    reason = check_harmless(metrics=claim(100), steps=2, max_samples=50)
    assert reason == "metric 'num-examples' = 100: at most 50 allowed, max_samples"
    assert attacked(metrics=claim(2**24), max_samples=inf)[1].dropped == []


def test_flower_claim_of_one_of_two_has_no_median():
    """Who claims 1 sample must not have the other one dropped."""
    assert attacked(metrics=claim(1), clients=2)[1].dropped == []


@pytest.mark.parametrize("wrong", [0, -1, nan])
def test_flower_bound_of_claims_is_a_number_above_0(wrong):
    with pytest.raises(ConfigError, match=r"max_samples = .*: above 0, or None"):
        Compressed(FedAvg(), max_samples=wrong)


METRICS = {
    "none": lambda content: content.pop("metrics"),
    "renamed": lambda content: content.update({"others": content.pop("metrics")}),
    "two records": lambda content: content.update({"more": MetricRecord({"num-examples": 40})}),
    "empty record": lambda content: content.update({"more": MetricRecord()}),
    "no count": lambda content: content["metrics"].pop("num-examples"),
    "one more": lambda content: content["metrics"].update({"\x1b[31m\u202e\n" + 500 * "x": 1.0}),
}


def first(held):
    """The metric beside the count: the loss of training, the norm of evaluation."""
    return next(key for key in held if key != "num-examples")


@pytest.mark.parametrize("name", METRICS)
def test_flower_metrics_unlike_those_of_the_others_are_dropped(name):
    assert check_harmless(metrics=METRICS[name], steps=2).startswith("metric")


def fair():
    """A strategy that weighs by the loss."""
    return QFedAvg(client_learning_rate=0.1, q=0.1, train_loss_key="loss")


@pytest.mark.parametrize(
    ("value", "build"), [(None, FedAvg), (nan, FedAvg), (inf, FedAvg), ([1.0, 2.0], FedAvg), (nan, fair)]
)
def test_flower_loss_unlike_that_of_the_others_is_dropped(value, build):
    def change(content):
        if "loss" in content["metrics"]:
            del content["metrics"]["loss"]
            if value is not None:
                content["metrics"]["loss"] = value

    assert check_harmless(metrics=change, build=build).startswith("metric 'metrics/loss' is ")


def test_flower_loss_that_is_nan_on_most_nodes_is_the_app_s():
    app = client_app([compress(STC)])
    net = Net(app, 3)

    def change(node, reply):
        if "loss" in reply.content["metrics"] and node != net.node_of(0):
            reply.content["metrics"]["loss"] = nan
        return reply

    net.change = change
    strategy = Compressed(FedAvg(), STC)
    result, _ = run(strategy, None, rounds=1, net=net)
    assert [drop.reason for drop in strategy.dropped] == [
        "metric 'metrics/loss' is a number, in most replies of the round not finite"
    ]
    assert len(result.arrays) == 2


def test_flower_of_two_nodes_the_one_that_is_as_both_were_before_is_right():
    net = Net(client_app([compress(STC)]), 2)
    rounds = iter(range(100))

    def change(node, reply):
        if node == net.node_of(0) and "loss" in reply.content["metrics"] and next(rounds) > 0:
            reply.content["metrics"]["more"] = 1.0
        return reply

    net.change = change
    strategy = Compressed(FedAvg(), STC)
    run(strategy, None, net=net)
    assert [(drop.round, drop.node) for drop in strategy.dropped] == [(2, net.node_of(0)), (3, net.node_of(0))]


def test_flower_claimed_error_of_coding_is_bounded():
    """It is a node's own word, in front of the values, and the mean over the run would be infinite for ever."""
    net = Net(client_app([compress(STC)]), 4)

    def change(node, reply):
        if node == net.node_of(0) and "thinwire" in reply.content:
            array = reply.content["thinwire"]["frame"]
            frame = frames.read(array.data)
            values = frame.one(Section.VALUES)
            parts = tuple(
                (sort, b"\x80\x7f" + values[2:] if sort == Section.VALUES else data) for sort, data in frame.sections
            )
            array.data = frames.write(replace(frame, sections=parts))
        return reply

    net.change = change
    strategy = Compressed(FedAvg(), STC)
    run(strategy, None, rounds=2, net=net)
    assert strategy.dropped == []
    assert 25 <= strategy.total.mean_error < 26


# What is no attack.


class Keep(FedAvg):
    """Takes what comes, and keeps the names of it."""

    def __init__(self):
        super().__init__(fraction_evaluate=0.0)
        self.replies = []

    def aggregate_train(self, server_round, replies):
        self.replies += [sorted(reply.content["arrays"]) for reply in replies if not reply.has_error()]
        return None, None


def replies_of(work, start=None, **options):
    inner = Keep()
    strategy = Compressed(inner, "float16", **options)
    run(strategy, None, rounds=1, initial=start, net=Net(client_app([compress("float16")], work=work), 3))
    return len(inner.replies), [drop.reason for drop in strategy.dropped]


def test_flower_app_may_reply_with_other_arrays_than_it_was_sent_if_all_nodes_do():
    def work(held, client):
        return {"w": held["w"].astype(np.float64), "c": np.arange(3)}

    assert replies_of(work) == (3, [])


def test_flower_strings_of_bytes_may_have_any_length():
    """Trees of xgboost. A mask that most nodes keep is none."""
    start = record(trees=np.zeros(0, np.uint8), mask=np.zeros(8, np.uint8))

    def trees(held, client):
        return {"trees": np.zeros(7 + client, np.uint8), "mask": held["mask"]}

    def masks(held, client):
        return {"trees": held["trees"], "mask": np.zeros(8 if client else 9, np.uint8)}

    assert replies_of(trees, start) == (3, [])
    assert replies_of(masks, start) == (
        2,
        ["array 'arrays/mask' is uint8 (9,), in most replies of the round uint8 (8,)"],
    )


def test_flower_strategy_whose_nodes_reply_with_different_things_says_so():
    def work(held, client):
        return dict.fromkeys("abc"[: client + 1], held["w"])

    assert replies_of(work, alike=False) == (3, [])
    assert len(replies_of(work)[1]) == 2


# The strategy.


class Picky(FedAvg):
    """Raises for a loss above 5."""

    def aggregate_train(self, server_round, replies):
        if any(reply.content["metrics"]["loss"] > 5 for reply in replies if not reply.has_error()):
            raise ValueError("a loss\nabove 5")
        return super().aggregate_train(server_round, replies)


def large_loss(content):
    if "loss" in content["metrics"]:
        content["metrics"]["loss"] = 9.0


def test_flower_reply_with_which_the_strategy_raises_is_dropped():
    reason = check_harmless(metrics=large_loss, build=Picky)
    assert reason == "reply: with it alone aggregate_train raises ValueError: a loss above 5"


def test_flower_what_the_strategy_raises_whoever_replies_is_raised(caplog):
    class Raises(FedAvg):
        def aggregate_train(self, server_round, replies):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        attacked(strategy=Raises())
    assert "thinwire: round 1: Raises.aggregate_train raises LookupError: mine" in caplog.messages


class Sums(FedAvg):
    """Has a momentum; in round 2 it adds up what, of each reply alone, is finite."""

    def __init__(self):
        super().__init__()
        self.momentum, self.history = np.zeros(B, np.float32), {"moments": [np.zeros(B, np.float32)]}

    def aggregate_train(self, server_round, replies):
        contents = [reply.content for reply in replies if not reply.has_error()]
        arrays, metrics = super().aggregate_train(server_round, replies)
        scale = np.float32(1.5e38 if server_round == 2 else 1)
        with np.errstate(over="ignore"):
            self.momentum += sum(scale * (0 * content["arrays"]["b"].numpy() + 1) for content in contents)
        self.history["moments"].append(self.momentum.copy())
        return ArrayRecord({**arrays, "b": Array(self.momentum)}), metrics


def test_flower_aggregate_that_is_not_finite_undoes_the_round():
    """The model and the strategy are as before, no node believes that it was heard, and the run goes on."""
    inner = Sums()
    result, strategy, _ = attacked(strategy=inner)
    assert [drop.round for drop in strategy.dropped] == [2, 2, 2, 2]
    (reason,) = {drop.reason for drop in strategy.dropped}
    assert reason == (
        "round undone: aggregate_train gives NaN or infinite entries in 'b', with no single reply to blame"
    )
    assert result.arrays["b"].numpy().tolist() == 5 * [8.0]
    assert inner.momentum.tolist() == 5 * [8.0]
    assert [moment[0] for moment in inner.history["moments"]] == [0, 4, 8]
    assert strategy._exchange.accepted == dict.fromkeys(strategy._exchange.accepted, 3)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]


class Froze(FedAvg):
    """Its aggregate is finite, its second moment is not."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        with np.errstate(over="ignore"):
            self.v_t = {key: np.float32(1e35) * array.numpy() ** 2 for key, array in arrays.items()}
        return arrays, metrics


def test_flower_strategy_of_a_round_that_goes_well_keeps_its_own_containers():
    class Notes(Keep):
        def aggregate_train(self, server_round, replies):
            notes.append(server_round)
            return super().aggregate_train(server_round, replies)

    notes, inner = [], Notes()
    inner.notes = notes
    attacked(strategy=inner)
    assert inner.notes is notes
    assert notes == [1, 2, 3]


def test_flower_reply_that_makes_a_moment_infinite_is_dropped():
    def large(new):
        return {**new, "w": new["w"] + np.float32(1e3)}

    assert check_harmless(large, build=Froze).endswith("gives NaN or infinite entries in Froze.v_t")


def test_flower_mask_of_infinities_is_no_failure():
    start = record(w=np.zeros(W, np.float32), mask=np.array([0, -inf], np.float32))
    app = client_app([compress(STC)], work=lambda held, client: {**held, "w": held["w"] + np.float32(1)})
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), STC)
    result, _ = run(strategy, None, initial=start, net=Net(app, 3))
    assert strategy.dropped == []
    assert result.arrays["mask"].numpy()[1] == -inf


@pytest.mark.parametrize("build", [FedTrimmedAvg, lambda: Krum(num_malicious_nodes=1)])
def test_flower_robust_strategies_never_see_the_attacker(build):
    check_harmless(ARRAYS["complex"], build=build)


def test_flower_round_in_which_only_attackers_reply_ends_the_run_in_one_line():
    net = Net(client_app([compress(STC)]), 3)

    def change(node, reply):
        claim(nan)(reply.content)
        return reply

    net.change = change
    with pytest.raises(TrainingError, match=r"^round 1: no reply can be used \(node 1001: metric 'num-examples' = nan"):
        run(Compressed(FedAvg(), STC), None, net=net)


# Three of ten, fifty rounds.


def mutated(draw, content, old):
    array = content["thinwire"]["frame"]
    data, place = array.data, int(draw.integers(len(array.data)))
    array.data = data[:place] + bytes([data[place] ^ 1 << int(draw.integers(8))]) + data[place + 1 :]


def cut(draw, content, old):
    array = content["thinwire"]["frame"]
    array.data = array.data[: draw.integers(len(array.data))]


def replayed(draw, content, old):
    content["thinwire"]["frame"].data = old


def one_number(new):
    new["w"][0, 0] = 3.4e38
    return new


FRAMES = {"mutated": mutated, "cut": cut, "replayed": replayed}
COUNTS = (nan, inf, -inf, -1.0, 0, [40], 2**24, 1e308)
LYING = {f"count {value}": claim(value) for value in COUNTS} | METRICS
SPOILT = ARRAYS | {"huge": one_number}


class Siege(Net):
    """The last three nodes attack in every message, each with what it draws."""

    def __init__(self, app, clients=10):
        super().__init__(app, clients)
        self.attackers = [self.node_of(client) for client in range(clients - 3, clients)]
        self.draw, self.kinds, self.old = np.random.default_rng(0), {}, {}
        self.change = self.tamper

    def push_messages(self, messages):
        messages = list(messages)
        training = messages[0].metadata.message_type == "train"
        kinds = [*LYING, *(["no arrays", "error", "stranger", *FRAMES, *SPOILT] if training else [])]
        self.kinds.update({node: str(self.draw.choice(kinds)) for node in self.attackers})
        return super().push_messages(messages)

    def work(self, held, client):
        new = descend(held, client)
        kind = self.kinds.get(self.node_of(client))
        return SPOILT[kind](new) if kind in SPOILT else new

    def tamper(self, node, reply):
        kind = self.kinds[node] if node in self.attackers else "honest"
        if kind in LYING:
            LYING[kind](reply.content)
        elif kind in FRAMES and node in self.old:
            FRAMES[kind](self.draw, reply.content, self.old[node])
        elif kind == "no arrays" or kind in FRAMES:
            no_arrays(reply.content)
        elif kind == "stranger":
            reply.metadata.__dict__["_src_node_id"] = 99
        elif kind == "error":
            return Message(error=Error(code=0, reason="thinwire: \x1b[2J"), metadata=reply.metadata)
        if "thinwire" in reply.content:
            self.old[node] = reply.content["thinwire"]["frame"].data
        return reply


def withstand(build, rounds, **options):
    """Each attack is dropped, so the model is that of the seven, bit for bit, and nothing grows on the server."""
    net = Siege(None)
    net.app = client_app([compress(STC)], work=net.work)
    strategy = Compressed(build(), STC, **options)
    result, _ = run(strategy, None, rounds=rounds, net=net)
    assert sorted(result.train_metrics_clientapp) == list(range(1, rounds + 1))
    assert len(strategy.dropped) == 3 * 2 * rounds
    assert {drop.node for drop in strategy.dropped} <= {*net.attackers, 99}
    assert all(0 < len(drop.reason) < 300 for drop in strategy.dropped)
    exchange = strategy._exchange
    held = (exchange.have, exchange.accepted, exchange.asked, exchange.buffers, exchange.warned, exchange.usual)
    assert all(len(part) <= 10 for part in held)

    honest = Net(client_app([compress(STC)]), 10)
    honest.unheard = {honest.node_of(client) for client in (7, 8, 9)}
    expected, _ = run(Compressed(build(), STC, **options), None, rounds=rounds, net=honest)
    assert same(result.arrays, expected.arrays)


def test_flower_five_rounds_with_three_attackers_of_ten():
    withstand(FedAvg, 5)


@pytest.mark.slow
@pytest.mark.parametrize("build", [FedAvg, FedAdam, FedMedian])
@pytest.mark.parametrize("downlink", [None, "float16"])
def test_flower_fifty_rounds_with_three_attackers_of_ten(build, downlink):
    withstand(build, 50, downlink=downlink)
