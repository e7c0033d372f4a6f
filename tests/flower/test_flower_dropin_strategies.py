"""Flower's own strategies inside the wrapper, and its clipping for differential privacy on either side."""

import random

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
)
from test_flower_dropin_feedback import flat, play, stepwise
from thinapp import STC, Net, arrays_of, client_app, linear, run, same, thin

from thinwire.errors import TrainingError
from thinwire.flower.dropin import Compressed, compress

STRATEGIES = {
    "fedavg": FedAvg,
    "fedavgm": lambda: FedAvgM(server_momentum=0.5),
    "fedprox": lambda: FedProx(proximal_mu=0.1),
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "fedmedian": FedMedian,
    "fedtrimmedavg": FedTrimmedAvg,
    "krum": lambda: Krum(num_malicious_nodes=1),
    "multikrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2),
    "bulyan": lambda: Bulyan(num_malicious_nodes=0),
    "qfedavg": lambda: QFedAvg(client_learning_rate=0.1, q=0.1, train_loss_key="loss"),
}
NO_NOISE = 0.0


@pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
def test_flower_strategy_inside_is_the_strategy_alone_bit_for_bit(build):
    plain, _ = run(build(), client_app(), rounds=2, clients=4)
    result, strategy, _ = thin("float32", build(), rounds=2, clients=4)
    assert same(result.arrays, plain.arrays)
    assert strategy.dropped == []


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "fedmedian", "krum"])
@pytest.mark.parametrize("downlink", [None, "float16"])
def test_flower_strategy_inside_sees_what_the_codec_leaves(name, downlink):
    build = STRATEGIES[name]
    plain, _ = run(build(), client_app(), rounds=3, clients=4)
    result, strategy, _ = thin("float16", build(), rounds=3, clients=4, downlink=downlink)
    assert strategy.dropped == []
    for key, array in plain.arrays.items():
        assert result.arrays[key].numpy().dtype == array.numpy().dtype
        assert np.allclose(result.arrays[key].numpy(), array.numpy(), atol=2e-2)


def test_flower_wide_arrays_of_an_optimiser_are_still_coded():
    """FedAdam's are float64 from round 2 on, the nodes' float32: their change is coded, in float32."""
    result, _, _ = thin(STC, FedAdam(), rounds=3, clients=2)
    up = [metrics["thinwire-up-bytes"] for metrics in result.train_metrics_clientapp.values()]
    assert result.arrays["w"].numpy().dtype == np.float64
    assert max(up) < up[0] + 2 * (6 + len('{"as":{"float32":[[0,2]]}}')) + 10


def test_flower_summary_is_the_strategy_s_and_a_line(caplog):
    caplog.set_level("INFO", logger="flwr")
    Compressed(DifferentialPrivacyServerSideFixedClipping(FedAdam(), 1.0, 2.0, 2), STC, downlink="float16").summary()
    text = [entry.getMessage() for entry in caplog.records]
    assert any("DP settings" in line for line in text)
    assert any("FedOpt settings" in line for line in text)
    assert text[-1].endswith('"positions":{"id":"gaps"}} | down {"id":"float16"}')


# Clipping.


def run_away(arrays, client):
    """A change of norm 3 and more."""
    draw = np.random.default_rng(client)
    return {key: x + np.float32(1) * draw.standard_normal(x.shape).astype(np.float32) for key, x in arrays.items()}


def norms(before, result):
    return float(np.linalg.norm(flat(arrays_of(result.arrays)) - flat(arrays_of(before))))


def clipped(strategy, mods):
    np.random.seed(0)  # noqa: NPY002  Flower's noise comes from numpy's global generator
    net = Net(client_app(mods, work=run_away), 2)
    result, _ = run(strategy, None, rounds=1, net=net)
    return result


def two(wrapper, clip=1.5):
    return wrapper(FedAvg(), NO_NOISE, clip, 2)


@pytest.mark.parametrize("codec", ["float32", "float16", STC])
def test_flower_clipping_on_the_server_is_of_the_decoded_update(codec):
    strategy = Compressed(two(DifferentialPrivacyServerSideFixedClipping), codec)
    result = clipped(strategy, [compress(codec)])
    assert strategy.dropped == []
    assert 0.1 < norms(linear(), result) <= 1.5 * (1 + 1e-5)


def test_flower_clipping_on_the_server_is_flower_s_own_bit_for_bit():
    plain = clipped(two(DifferentialPrivacyServerSideFixedClipping), [])
    result = clipped(Compressed(two(DifferentialPrivacyServerSideFixedClipping), "float32"), [compress("float32")])
    assert same(plain.arrays, result.arrays)


@pytest.mark.parametrize("codec", ["float32", "float16", STC])
def test_flower_clipping_on_the_client_comes_before_coding(codec):
    strategy = Compressed(two(DifferentialPrivacyClientSideFixedClipping), codec)
    result = clipped(strategy, [compress(codec, error_feedback=False), fixedclipping_mod])
    assert strategy.dropped == []
    assert 0.1 < norms(linear(), result) <= 1.5 * 1.001


def test_flower_clipping_on_the_client_is_flower_s_own_bit_for_bit():
    plain = clipped(two(DifferentialPrivacyClientSideFixedClipping), [fixedclipping_mod])
    mods = [compress("float32"), fixedclipping_mod]
    result = clipped(Compressed(two(DifferentialPrivacyClientSideFixedClipping), "float32"), mods)
    assert same(plain.arrays, result.arrays)


def test_flower_residual_on_top_of_what_was_clipped_is_dropped():
    """The norm that clients clip to is checked after decoding, without being asked for."""
    net = Net(client_app([compress(STC), fixedclipping_mod], work=run_away), 2)
    strategy = Compressed(two(DifferentialPrivacyClientSideFixedClipping), STC)
    random.seed(0)
    steps = stepwise(net, strategy)
    rounds = (play(steps) for _ in range(9))
    with pytest.raises(TrainingError, match=r"^round [2-9]: .* at most 1\.5015 allowed, for clients clip: a residual"):
        list(rounds)
    assert "error_feedback=False" in strategy.dropped[0].reason


def test_flower_codec_that_grows_what_was_clipped_is_dropped():
    codec = {"id": "terngrad"}
    net = Net(client_app([compress(codec, error_feedback=False), fixedclipping_mod], work=run_away), 2)
    strategy = Compressed(two(DifferentialPrivacyClientSideFixedClipping), codec)
    with pytest.raises(TrainingError, match=r"no reply can be used .* its norm is .* at most 1\.5015 allowed"):
        play(stepwise(net, strategy))
    strategy = Compressed(two(DifferentialPrivacyClientSideFixedClipping), codec, max_update_norm=100.0)
    assert play(stepwise(net, strategy)) is not None


def test_flower_mod_in_the_wrong_order_says_so():
    """Clipping first would have to clip a frame."""
    net = Net(client_app([fixedclipping_mod, compress(STC)], work=run_away), 2)
    strategy = Compressed(two(DifferentialPrivacyClientSideFixedClipping), STC)
    replies = net.send_and_receive(strategy.configure_train(1, linear(), ConfigRecord(), net))
    assert all(reply.has_error() for reply in replies)
    assert "exactly one ConfigRecord" in replies[0].error.reason


@pytest.mark.parametrize("side", ["server", "client"])
def test_flower_adaptive_clipping(side):
    kinds = {
        "server": (DifferentialPrivacyServerSideAdaptiveClipping, [compress("float16")]),
        "client": (DifferentialPrivacyClientSideAdaptiveClipping,
                   [compress("float16", error_feedback=False), adaptiveclipping_mod]),
    }  # fmt: skip
    kind, mods = kinds[side]
    inner = kind(FedAvg(), noise_multiplier=0.1, num_sampled_clients=2, initial_clipping_norm=2.0,
                 clipped_count_stddev=0.3)  # fmt: skip
    strategy = Compressed(inner, "float16")
    result = clipped(strategy, mods)
    assert strategy.dropped == []
    assert len(result.arrays) == 2
