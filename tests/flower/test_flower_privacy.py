"""Clipping for differential privacy beside codecs: what is averaged is within the norm after decoding, codec or not."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from test_flower_dropin_strategies import flat, run_away
from thinapp import Net, arrays_of, client_app, linear, run

from thinwire.flower.dropin import Compressed, compress

CLIP, NO_NOISE, CLIENTS = 1.5, 0.0, 3
CODECS = [
    "float32", "float16", "terngrad", "signsgd", {"id": "stc", "keep": 0.1}, {"id": "qsgd"},
    {"id": "eden", "bits": 1.0}, {"id": "thin"}, {"id": "fedzip"},
]  # fmt: skip


class Watching(FedAvg):
    """Keeps how far from the arrays that were sent each reply is that is averaged."""

    def __init__(self):
        super().__init__()
        self.norms = []

    def configure_train(self, server_round, arrays, config, grid):
        self.sent = flat(arrays_of(arrays))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for reply in replies:
            (held,) = reply.content.array_records.values()
            self.norms.append(float(np.linalg.norm(flat(arrays_of(held)) - self.sent)))
        return super().aggregate_train(server_round, replies)


def averaged(codec, wrap=lambda watching: watching, **options):
    """Norms of what is averaged over four rounds in which clients want to move by 3 and more."""
    watching = Watching()
    strategy = Compressed(wrap(watching), codec, **options)
    net = Net(client_app([compress(codec)], work=run_away), CLIENTS)
    run(strategy, None, rounds=4, net=net)
    assert strategy.dropped == []
    return watching.norms


def private(strategy, noise=NO_NOISE):
    return DifferentialPrivacyServerSideFixedClipping(strategy, noise, CLIP, CLIENTS)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_flower_what_is_averaged_is_within_the_clipping_norm_after_decoding(codec):
    """With error feedback on, whose residuals make later updates longer."""
    norms = averaged(codec, private)
    assert len(norms) == 4 * CLIENTS
    assert max(norms) <= CLIP * (1 + 1e-5)
    assert max(norms) > 0.9 * CLIP  # it was clipping that bounded them


@pytest.mark.parametrize("codec", ["terngrad", "float32"])
def test_flower_without_clipping_updates_are_longer(codec):
    assert max(averaged(codec)) > 2 * CLIP


def test_flower_the_bound_holds_with_a_coded_downlink():
    assert max(averaged({"id": "stc", "keep": 0.1}, private, downlink="float16")) <= CLIP * (1 + 1e-5)


def test_flower_noise_is_added_to_what_was_decoded_and_clipped():
    """The aggregate differs from that without noise by noise of the standard deviation that Flower states."""
    results = []
    for noise in (NO_NOISE, 1.0):
        np.random.seed(1)  # noqa: NPY002  Flower's noise comes from numpy's global generator
        codec = {"id": "stc", "keep": 0.1}
        strategy = Compressed(private(FedAvg(), noise), codec)
        net = Net(client_app([compress(codec)], work=run_away), CLIENTS)
        results.append(run(strategy, None, rounds=1, net=net)[0])
    difference = flat(arrays_of(results[1].arrays)) - flat(arrays_of(results[0].arrays))
    assert 0.7 < np.std(difference) / (CLIP / CLIENTS) < 1.3


def test_flower_clipping_around_the_wrapper_ends_the_round():
    """It would clip coded bytes."""
    codec = {"id": "stc", "keep": 0.1}
    strategy = private(Compressed(FedAvg(), codec))
    net = Net(client_app([compress(codec)], work=run_away), CLIENTS)
    replies = net.send_and_receive(strategy.configure_train(1, linear(), ConfigRecord(), net))
    with pytest.raises(TypeError, match=r"numpy conversion: 'thinwire\.frame'"):
        strategy.aggregate_train(1, replies)
