"""Which arrays are buffers, that they are exact both ways, and that nothing is sent which the other end holds."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from test_flower_dropin_downlink import frame
from test_flower_dropin_feedback import kept, of, play, stepwise
from thinapp import STC, Net, arrays_of, client_app, record, run, thin

from thinwire.errors import ConfigError, TrainingError
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.buffers import buffers
from thinwire.flower.dropin.manifest import Item, Manifest
from thinwire.frame import Section, read

EVERY = [
    "float32", "float16", "bfloat16", "fp8", "thin", "fedzip", "m22", "tinyscript", STC, "signsgd", "terngrad", "qsgd",
    "drive", "eden", "count-sketch", "topk", "kmeans", "lloyd", "uniform",
]  # fmt: skip


class Keep(FedAvg):
    """Keeps the replies."""

    def __init__(self):
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.replies = []

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.replies.append([arrays_of(reply.content["arrays"]) for reply in replies if reply.has_content()])
        return super().aggregate_train(server_round, replies)


def adding(**steps):
    """An app that adds to some arrays and leaves the others."""

    def work(arrays, client):
        return {key: x + np.asarray(steps[key], x.dtype) if key in steps else x for key, x in arrays.items()}

    return work


def simple(work, initial, codec=STC, rounds=1, clients=2, strategy=None, **options):
    """-> what the strategy saw of the replies, result, strategy, net"""
    inner = strategy or Keep()
    app = client_app([compress(codec)], work=work)
    result, wrapped, net = thin(codec, inner, rounds, clients, initial, app=app, **options)
    assert wrapped.dropped == []
    net.seen, net.heard = list(filter(None, net.seen)), list(filter(None, net.heard))  # no evaluation is asked for
    return inner, result, wrapped, net


def bytes_up(net):
    return [[len(content["thinwire"]["frame"].data) for content in heard.values()] for heard in net.heard]


def raw_of(content):
    data = content["thinwire"]["frame"].data
    return b"".join(read(data).all(Section.RAW))


def weights():
    return np.random.default_rng(1).standard_normal((30, 20)).astype(np.float32)


# Which arrays.


def found(patterns=(), **arrays):
    manifest = Manifest(("a",), tuple(Item("a", key, str(x.dtype), x.shape) for key, x in arrays.items()))
    return [key for _, key in buffers(manifest, list(arrays.values()), patterns)]


@pytest.mark.parametrize(
    "key",
    [
        "running_mean", "bn.running_var", "layer1.0.bn.num_batches_tracked", "bn/moving_variance:0",
        "bert.embeddings.position_ids", "rotary.inv_freq", "fc.parametrizations.weight.0._u",
    ],
)  # fmt: skip
def test_flower_buffers_are_known_by_name(key):
    assert found(**{key: np.ones(3, np.float32)}) == [key]


def test_flower_weights_of_similar_names_are_no_buffers():
    names = ["weight", "bias", "weight_v", "running_variance", "my_running_var", "mask", "running_var.weight"]
    assert found(**{key: np.ones(3, np.float32) for key in names}) == []


def test_flower_buffers_are_known_by_what_they_hold():
    arrays = {"f16": np.ones(2, np.float16), "f64": np.ones(2), "int": np.arange(2), "bool": np.ones(2, bool)}
    assert found(**arrays, mask=np.array([0, -np.inf], np.float32), nan=np.array([np.nan])) == ["int", "bool", "mask"]


@pytest.mark.parametrize("pattern", ["*.centers", "vq.*", "a/vq.centers", "vq.centers", "*c[ae]nters"])
def test_flower_buffers_are_those_that_the_user_names(pattern):
    arrays = {"vq.centers": np.ones(2, np.float32), "fc.weight": np.ones(2, np.float32)}
    assert found([pattern], **arrays) == ["vq.centers"]


@pytest.mark.parametrize("wrong", ["running", [3], [""], None, {"a": 1}])
def test_flower_patterns_are_a_list_of_texts(wrong):
    with pytest.raises(ConfigError, match=r"exact = .*: a list of names or patterns"):
        Compressed(FedAvg(), STC, exact=wrong)


def test_flower_pattern_that_names_nothing_is_refused_at_the_first_round():
    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(FedAvg(), STC, exact=["*.center"])
    with pytest.raises(ConfigError, match=r"exact = '\*\.center': names one of the 2 arrays \(w, b, \.\.\.\)"):
        run(strategy, None, net=net)


# Exact both ways.


@pytest.mark.parametrize("downlink", [None, STC, "terngrad"], ids=str)
@pytest.mark.parametrize("codec", ["terngrad", STC], ids=str)
def test_flower_buffers_are_exact_and_take_nothing_from_the_weights(codec, downlink):
    """Statistics a thousand times as large as the change of any weight."""
    seen, draw = [], np.random.default_rng(2)
    stats = {"bn.running_mean": 1e3 * draw.standard_normal(7).astype(np.float32),
             "bn.running_var": 1e-3 + 1e6 * draw.random(7).astype(np.float32)}  # fmt: skip

    def work(arrays, client):
        seen.append({key: arrays[key] for key in stats})
        return {"w": arrays["w"] + np.float32(1e-3), **{key: x * np.float32(1 + client) for key, x in stats.items()}}

    start = record(w=weights(), **{key: np.ones_like(x) for key, x in stats.items()})
    inner, result, _, _ = simple(work, start, codec, rounds=3, downlink=downlink)
    for replies in inner.replies:
        for client, reply in enumerate(replies):
            assert all(np.array_equal(reply[key], x * np.float32(1 + client)) for key, x in stats.items())
            assert np.abs(reply["w"] - weights()).max() < 0.05
    mean = {key: result.arrays[key].numpy() for key in stats}
    assert all(np.array_equal(got[key], mean[key]) for got in seen[2:] for key in stats)
    assert all(np.allclose(mean[key], stats[key] * (40 + 2 * 41) / 81) for key in stats)


@pytest.mark.parametrize("downlink", [None, STC], ids=str)
def test_flower_whole_numbers_are_exact_to_the_last_bit(downlink):
    held = {"big": np.array([2**62 + 1, -(2**63), 2**63 - 1, 0]), "small": np.array([-128, 127], np.int8),
            "unsigned": np.array([2**64 - 1], np.uint64), "flags": np.array([[True, False, True]])}  # fmt: skip
    seen = []

    def work(arrays, client):
        seen.append({key: arrays[key] for key in held})
        return {"w": arrays["w"] + np.float32(1), "flags": ~arrays["flags"], "small": arrays["small"],
                "big": arrays["big"] ^ client, "unsigned": arrays["unsigned"] - np.uint64(client)}  # fmt: skip

    inner, _, _, _ = simple(work, record(w=weights(), **held), downlink=downlink)
    assert all(np.array_equal(got[key], x) and got[key].dtype == x.dtype for got in seen for key, x in held.items())
    for client, reply in enumerate(inner.replies[0]):
        assert np.array_equal(reply["big"], held["big"] ^ client)
        assert reply["unsigned"] == 2**64 - 1 - client
        assert np.array_equal(reply["flags"], ~held["flags"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_flower_buffers_of_other_precisions_are_exact(dtype):
    step = np.array([0.1, 1e-4, 3.7], dtype)
    inner, _, _, _ = simple(adding(running_var=step, w=1), record(w=weights(), running_var=np.ones(3, dtype)))
    assert all(np.array_equal(reply["running_var"], np.ones(3, dtype) + step) for reply in inner.replies[0])
    assert inner.replies[0][0]["running_var"].dtype == dtype


@pytest.mark.parametrize("downlink", [None, STC, "float16"], ids=str)
@pytest.mark.parametrize("codec", ["float32", "float16", STC], ids=str)
def test_flower_mask_of_minus_infinity_is_no_nan_and_costs_nothing_up(codec, downlink):
    mask = np.triu(np.full((40, 40), -np.inf, np.float32), 1)
    _, result, _, net = simple(adding(w=1), record(w=weights(), mask=mask), codec, rounds=3, downlink=downlink)
    assert np.array_equal(result.arrays["mask"].numpy(), mask)
    assert np.isfinite(result.arrays["w"].numpy()).all()
    assert all(not raw_of(content) for heard in net.heard for content in heard.values() if codec != "float32")
    if downlink:
        assert [len(frame(of(net, seen, 0)).all(Section.RAW)) for seen in net.seen] == [1, 0, 0]


def test_flower_infinity_where_none_was_is_refused():
    def work(arrays, client):
        mask = arrays["mask"].copy()
        mask[0, 0] = -np.inf if client else 0
        return {**arrays, "mask": mask}

    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    app = client_app([compress(STC)], work=work)
    _, strategy, _ = thin(STC, Keep(), 1, 2, record(w=weights(), mask=mask), app=app)
    assert [drop.reason for drop in strategy.dropped] == ["update: 'arrays/mask' holds NaN or infinite entries"]


def test_flower_variance_below_zero_is_refused():
    app = client_app([compress(STC)], work=adding(**{"bn.running_var": [0, -2]}))
    strategy = Compressed(Keep(), STC)
    start = record(w=weights(), **{"bn.running_var": np.ones(2, np.float32)})
    with pytest.raises(TrainingError, match=r"'arrays/bn.running_var' is a variance and holds entries below 0"):
        run(strategy, None, 1, initial=start, net=Net(app, 2))


def test_flower_strategy_that_makes_a_variance_negative_is_told_once(caplog):
    """FedAdam takes steps of a fixed size, also of what is no weight."""
    caplog.set_level("WARNING", logger="flwr")
    start = record(w=weights(), **{"bn.running_var": np.full(3, 0.01, np.float32)})
    strategy = FedAdam(fraction_evaluate=0.0, eta=0.5)
    simple(adding(w=1, **{"bn.running_var": -0.005}), start, rounds=3, strategy=strategy)
    told = [entry.getMessage() for entry in caplog.records if "below 0" in entry.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("thinwire: 'arrays/bn.running_var' is a variance and below 0: the strategy treats it as")


@pytest.mark.parametrize("downlink", [None, STC])
def test_flower_nan_of_the_strategy_s_own_ends_the_run_before_it_is_sent(downlink):
    class Breaks(Keep):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            arrays["w"] = Array(np.full((30, 20), np.nan, np.float32))
            return arrays, metrics

    app = client_app([compress(STC)], work=adding(w=1))
    reason = r"^round 1: Breaks.aggregate_train gives NaN or infinite entries in 'w', whichever reply it has$"
    with pytest.raises(TrainingError, match=reason):
        thin(STC, Breaks(), 3, 2, record(w=weights()), app=app, downlink=downlink)


def test_flower_buffers_that_the_user_names_are_exact_on_nodes_that_know_nothing_of_it():
    step = np.linspace(-1, 1, 50).astype(np.float32)
    start = ArrayRecord([weights(), np.ones(50, np.float32)])
    assert list(start) == ["0", "1"]
    work = adding(**{"0": 1e-3, "1": step})
    for exact, right in (["1"], True), ([], False):
        inner, _, _, net = simple(work, start, rounds=2, downlink=STC, exact=exact)
        assert all(np.array_equal(reply["1"], np.ones(50, np.float32) + step) == right for reply in inner.replies[0])
        assert kept(net, 0)["residual"].size == 600 + (0 if right else 50)


def test_flower_counters_that_the_strategy_averages_stay_buffers():
    """int64 in the first broadcast, float64 in all others: neither coded down nor up, nor part of the norm."""
    start = record(w=weights(), steps=np.arange(4))
    inner, result, _, _ = simple(adding(w=1e-3, steps=100), start, rounds=4, downlink=STC, max_update_norm=1.0)
    assert result.arrays["steps"].numpy().dtype == np.float64
    assert np.allclose(result.arrays["steps"].numpy(), np.arange(4) + 400)
    assert all(np.array_equal(a["steps"], b["steps"]) for a, b in inner.replies)


def test_flower_norm_is_of_weights_alone():
    start = record(w=weights(), **{"bn.running_mean": np.zeros(3, np.float32)})
    simple(adding(w=1e-3, **{"bn.running_mean": 1e4}), start, "float16", max_update_norm=1.0)
    with pytest.raises(TrainingError, match="its norm is"):
        simple(adding(w=1), start, "float16", max_update_norm=1.0)


# What the other end holds.


@pytest.mark.parametrize("codec", EVERY, ids=str)
def test_flower_array_that_does_not_change_costs_nothing_and_stays_what_it_is(codec):
    """Beside one that does, up and down. Under float16 two bytes an entry, under signSGD another array."""
    frozen = np.random.default_rng(3).standard_normal((100, 50)).astype(np.float32)
    seen = []

    def work(arrays, client):
        seen.append(arrays["frozen"])
        return {**arrays, "w": arrays["w"] + np.float32(0.01) * weights().T}

    start = record(frozen=frozen, w=weights().T)
    inner, _, _, net = simple(work, start, codec, rounds=3, downlink=codec)
    assert all(np.array_equal(x, frozen) for x in seen)
    assert all(np.array_equal(reply["frozen"], frozen) for replies in inner.replies for reply in replies)
    assert max(map(max, bytes_up(net))) < 4 * 600 + 200
    assert [len(frame(of(net, seen, 0)).all(Section.STEP)) for seen in net.seen] == [0, 1, 1]
    assert all(len(of(net, seen, 0)["arrays"]["frame"].data) < 4 * 600 + 200 for seen in net.seen[1:])


def test_flower_frozen_array_costs_nothing_up_where_nothing_is_coded():
    start = record(frozen=weights(), w=np.zeros(3, np.float32))
    _, _, _, net = simple(adding(w=1), start, "float32", rounds=2)
    assert bytes_up(net)[0] == [37 + 6 + 1 + 12] * 2


def test_flower_reply_as_received_is_a_few_bytes():
    start = record(w=weights(), **{"bn.running_var": np.ones(9, np.float32), "n": np.int64(3)})
    _, _, _, net = simple(adding(), start)
    assert bytes_up(net) == [[37 + 6 + 4] * 2]


def test_flower_array_with_a_residual_is_sent_though_it_does_not_change():
    """What was lost of it is still owed."""
    done = []

    def work(arrays, client):
        done.append(client)
        step = np.float32(1 if len(done) <= 1 else 0) * weights()
        return {"w": arrays["w"] + step}

    inner, _, _, _ = simple(work, record(w=weights()), rounds=3, clients=1)
    moved = [np.count_nonzero(np.diff([a[0]["w"] for a in inner.replies], axis=0)[n]) for n in (0, 1)]
    assert moved == [60, 60]


def test_flower_constants_of_whole_numbers_come_back_unsent_though_the_strategy_averages_them():
    """FedAvg makes 4.999… of 5: nodes that take whole numbers of it would have 4."""
    ids, seen = np.arange(512)[None], []

    def work(arrays, client):
        seen.append(arrays["position_ids"])
        return {"w": arrays["w"] + np.float32(1), "position_ids": arrays["position_ids"].astype(np.int64)}

    start = record(w=weights(), position_ids=ids)
    _, _, _, net = simple(work, start, rounds=3, clients=3, downlink=STC)
    assert all(x.dtype == np.int64 and np.array_equal(x, ids) for x in seen)
    assert all(not raw_of(content) for heard in net.heard for content in heard.values())
    assert [len(of(net, s, 0)["arrays"]["frame"].data) > 512 * 8 for s in net.seen] == [True, False, False]


def test_flower_buffer_that_changed_while_a_node_was_away_reaches_it():
    seen = {0: [], 1: []}

    def work(arrays, client):
        seen[client].append(arrays)
        return {"w": arrays["w"] + np.float32(1), "b": arrays["b"], "bn.running_var": arrays["bn.running_var"] * 2}

    codec = {"id": "stc", "keep": 0.02}
    start = record(w=weights(), b=np.ones(5, np.float32), **{"bn.running_var": np.ones(3, np.float32)})
    net = Net(client_app([compress(codec)], work=work), 2)
    strategy = Compressed(FedAvg(min_train_nodes=1, min_available_nodes=1), codec, downlink=codec)
    steps = stepwise(net, strategy, initial=start)
    play(steps)
    away = net.node_of(1)
    context = net.contexts.pop(away)
    play(steps)
    play(steps)
    net.contexts[away] = context
    play(steps)
    assert strategy.dropped == []
    assert seen[1][-1].keys() == seen[0][-1].keys()
    assert all(np.array_equal(seen[1][-1][key], x) for key, x in seen[0][-1].items())
    assert seen[1][-1]["bn.running_var"].tolist() == [8, 8, 8]


def test_flower_buffers_of_one_record_are_not_those_of_another():
    def reply(content, client):
        student = arrays_of(content["arrays"])
        return RecordDict({"arrays": record(**{key: x + x.dtype.type(1) for key, x in student.items()}),
                           "teacher": content["teacher"]})  # fmt: skip

    class Two(FedAvg):
        def configure_train(self, *arguments):
            messages = list(super().configure_train(*arguments))
            for message in messages:
                message.content["teacher"] = record(w=weights(), running_var=np.ones(2, np.float32))
            return messages

        def aggregate_train(self, server_round, replies):
            self.replies = list(replies)
            return None, None

    inner = Two(fraction_evaluate=0.0)
    app = client_app([compress(STC)], reply=reply)
    start = record(w=weights(), running_var=np.ones(2, np.float32))
    _, strategy, net = thin(STC, inner, 1, 2, start, app=app, exact=["teacher/*"])
    assert strategy.dropped == []
    content = inner.replies[0].content
    assert np.array_equal(content["teacher"]["w"].numpy(), weights())
    assert content["arrays"]["running_var"].numpy().tolist() == [2, 2]
    assert kept(net, 0)["pending"].size == 600


# What coding has lost.


@pytest.mark.parametrize(("codec", "error"), [("float16", 0), (STC, 0.5)], ids=str)
def test_flower_mean_error_of_the_updates_is_told(codec, error):
    _, result, wrapped, _ = simple(lambda arrays, client: {"w": arrays["w"] + weights()}, record(w=weights()), codec)
    told = result.train_metrics_clientapp[1]["thinwire-up-nmse"]
    assert isinstance(result.train_metrics_clientapp[1], MetricRecord)
    assert told == wrapped.total.mean_error == pytest.approx(error, abs=0.15)


def test_flower_missed_target_is_told_once(caplog, monkeypatch):
    """A codec that sends an eighth of the change where all but 1 % was asked for."""
    from thinwire.codecs import Thin

    honest = Thin.encode
    monkeypatch.setattr(Thin, "encode", lambda self, x, context: honest(self, x / 8, context))
    codec = {"id": "thin", "nmse": 0.01}
    simple(lambda arrays, client: {"w": arrays["w"] + weights()}, record(w=weights()), codec, rounds=2)
    told = [entry.getMessage() for entry in caplog.records if "asked for" in entry.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("thinwire: round 1, node 1001: coding lost 7")
    assert told[0].endswith("% of an update's energy, 1 % were asked for")


def test_flower_target_that_is_met_is_not_told(caplog):
    simple(lambda arrays, client: {"w": arrays["w"] + weights()}, record(w=weights()), "thin", rounds=1)
    assert not [entry for entry in caplog.records if "asked for" in entry.getMessage()]
