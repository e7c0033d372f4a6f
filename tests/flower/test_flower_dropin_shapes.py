"""Other people's arrays: each comes through right, or is refused by name in one line in the first round."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg
from test_flower_dropin_buffers import adding, simple, weights
from thinapp import STC, Net, arrays_of, client_app, record, run, thin
from torch import nn

from thinwire.errors import ConfigError, TrainingError
from thinwire.flower.dropin import Compressed, compress

ODD = {
    "scalar": np.float32(0.5),
    "scalar64": np.float64(-3),
    "empty": np.zeros((0, 4), np.float32),
    "one": np.ones((1, 1, 1), np.float32),
    "columns": np.asfortranarray(weights()),
    "every other": weights()[::2, ::3],
    "backwards": weights()[::-1],
    "turned": weights().T,
    "big-endian": weights().astype(">f4"),
    "big-endian whole": np.arange(5, dtype=">i8"),
    "half": weights().astype(np.float16),
    "double": weights().astype(np.float64),
    "subnormal": np.full(4, 1e-42, np.float32),
    "huge": np.full(4, 1e30, np.float32),
}


@pytest.mark.parametrize("downlink", [None, "float16"])
@pytest.mark.parametrize("key", ODD)
def test_flower_odd_array_comes_through(key, downlink):
    array, seen = ODD[key], []

    def work(arrays, client):
        seen.append(arrays[key])
        return {key: arrays[key] + np.asarray(1, array.dtype), "w": arrays["w"] + np.float32(0.5)}

    start = record(**{key: array, "w": weights()})
    inner, _, _, _ = simple(work, start, "float16", rounds=2, downlink=downlink)
    assert all(x.shape == array.shape for x in seen)
    assert np.array_equal(seen[0], array)
    for replies, before in zip(inner.replies, seen[::2], strict=True):
        for reply in replies:
            assert reply[key].dtype == np.asarray(before).dtype.newbyteorder("=")
            assert np.allclose(reply[key].astype(np.float64), before.astype(np.float64) + 1, rtol=2e-3)


def test_flower_tied_tensors_of_a_model_come_through():
    """A state dict has them twice; each is coded, and the model has one of them in the end."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(12, 6), nn.Linear(6, 12, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    before = model.embed.weight.detach().numpy().copy()
    inner, result, _, _ = simple(
        adding(**{"embed.weight": 1, "head.weight": 1}), ArrayRecord(model.state_dict()), "float16", rounds=2
    )
    assert list(inner.replies[0][0]) == ["embed.weight", "head.weight"]
    model.load_state_dict(result.arrays.to_torch_state_dict())
    assert model.head.weight is model.embed.weight
    assert np.allclose(model.head.weight.detach().numpy(), before + 2, atol=1e-2)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(3, "V2"), r"array arrays/w = 'void16': one of bool, int8"),  # what numpy makes of bfloat16
        (np.array(["a"]), r"array arrays/w = 'str32': one of bool, int8"),
        (np.zeros(2, "M8[s]"), r"array arrays/w = 'datetime64\[s\]': one of bool, int8"),
    ],
    ids=["bfloat16", "text", "date"],
)
def test_flower_array_of_another_kind_is_refused_by_name_before_anything_is_sent(array, reason):
    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(FedAvg(), STC)
    with pytest.raises(ConfigError, match=reason) as error:
        run(strategy, None, initial=ArrayRecord({"w": Array(array)}), net=net)
    assert "\n" not in str(error.value)
    assert net.seen == []


def test_flower_change_beyond_float32_is_refused_by_name():
    app = client_app([compress(STC)], work=lambda arrays, client: {"w": arrays["w"] + 1e300})
    with pytest.raises(TrainingError, match=r"^round 1: .*'arrays/w' changes by more than float32 holds"):
        thin(STC, None, 1, 2, record(w=weights().astype(np.float64)), app=app)


@pytest.mark.parametrize("downlink", [None, "thin"])
def test_flower_first_step_of_adam_moves_the_model_under_the_default_codec(downlink):
    """Its update is ± the learning rate everywhere."""
    sign = np.where(np.random.default_rng(4).random((64, 100)) < 0.5, np.float32(-1e-3), np.float32(1e-3))
    app = client_app([compress()], work=lambda arrays, client: {"w": arrays["w"] + sign})
    start = record(w=np.zeros((64, 100), np.float32))
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), downlink=downlink)
    result, _ = run(strategy, None, 1, initial=start, net=Net(app, 2))
    moved = arrays_of(result.arrays)["w"]
    assert np.square(moved - sign).sum() < 0.06 * np.square(sign).sum()
    assert strategy.total.mean_error < 0.06
