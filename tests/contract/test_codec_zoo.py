"""No codec does worse than sending nothing: every codec for updates, over updates that are not Gaussian."""

import numpy as np
import pytest
from tests.zoo.updates import random_update, zoo

from thinwire.codecs import CODECS, Context, Lloyd, Thin, carries, from_config, missed, nmse
from thinwire.codecs.checks import runs

# Draws of these are right on average, and may be further off than nothing: theory bounds their mean squared error.
STOCHASTIC = ("terngrad", "qsgd", "eden", "drive", "count-sketch")
# Codecs that have a value for 0 whatever the update; k-means and Lloyd have one where zeros are common.
KEEP_ZEROS = (
    "float32", "float16", "bfloat16", "fp8", "fedzip", "m22", "tinyscript", "stc", "terngrad", "qsgd", "topk",
    "by-role", "pooled", "each", "prune", "shortest", "logscale",
)  # fmt: skip
COMMON = {"kmeans": 1 / 3, "lloyd": 1 / 4}  # share of a tensor's entries from which on its zeros stay zeros
OTHERS = [
    {"id": "m22", "bits": 1}, {"id": "m22", "bits": 4, "keep": 0.5}, {"id": "m22", "magnitude": 6.0, "keep": 0.2},
    {"id": "m22", "magnitude": "auto"}, {"id": "tinyscript", "bits": 1}, {"id": "fedzip", "variant": "faithful"},
    {"id": "fedzip", "scope": "global", "roles": False, "keep": 0.3}, {"id": "stc", "keep": 0.3},
    {"id": "topk", "keep": 0.3, "values": {"id": "kmeans"}}, {"id": "topk", "keep": 1.0, "values": {"id": "ternary"}},
    {"id": "lloyd", "bits": 1}, {"id": "lloyd", "bits": 4, "family": "weibull"}, {"id": "lloyd", "magnitude": "auto"},
    {"id": "kmeans", "clusters": 2}, {"id": "kmeans", "clusters": 16}, {"id": "uniform", "bits": 1},
    {"id": "uniform", "bits": 4}, {"id": "thin", "nmse": 0.3}, {"id": "thin", "nmse": 1e-4, "speed": "fast"},
    {"id": "thin", "bits": 0.5}, {"id": "thin", "bytes": 40}, {"id": "thin", "lossless": True},
    {"id": "fp8", "format": "e5m2"}, {"id": "each", "values": {"id": "thin"}},
]  # fmt: skip

UPDATES = [kind() for kind in CODECS.values() if kind.dtype == "float32"]
DETERMINISTIC = [c for c in UPDATES if c.id not in STOCHASTIC] + [from_config(config) for config in OTHERS]


def sent(codec, layout, x, seed=3):
    """What arrives."""
    context = Context(layout, seed=seed)
    return codec.decode(codec.encode(x, context), context)


@pytest.mark.parametrize("codec", DETERMINISTIC, ids=repr)
def test_no_worse_than_sending_nothing(codec):
    for name, (layout, x) in zoo().items():
        wanted = np.abs(x) if carries(codec) == "magnitudes" else x
        back = sent(codec, layout, x)
        assert np.isfinite(back).all(), name
        assert nmse(wanted, back) <= 1, name
        if codec.id in KEEP_ZEROS and getattr(codec, "variant", "pinned") == "pinned":
            assert not back[x == 0].any(), f"{name}: a zero came back as a number"


@pytest.mark.parametrize("codec", [c for c in DETERMINISTIC if c.id == "thin"], ids=repr)
def test_a_target_is_met_or_said_to_be_missed(codec):
    for name, (layout, x) in zoo().items():
        got = codec.encoded(x, Context(layout))
        found = nmse(x, codec.decode(got.payload, Context(layout)))
        assert found == pytest.approx(got.nmse, rel=1e-9, abs=1e-300), name
        assert missed(codec, found, len(got.payload), x.size) == got.reason, name
        if got.target == "nmse":
            assert found <= got.wanted, name
        else:
            assert got.reached or len(got.payload) < 16, name  # the least that can be sent is more


@pytest.mark.parametrize("codec", [c for c in DETERMINISTIC if c.id in COMMON], ids=repr)
def test_common_zeros_stay_zeros(codec):
    share = {"kmeans": 1 / getattr(codec, "clusters", 3), "lloyd": 2.0 ** -getattr(codec, "bits", 2)}[codec.id]
    if isinstance(codec, Lloyd) and codec.bits == 1:
        pytest.skip("one bit is a sign")
    for name, (layout, x) in zoo().items():
        back = sent(codec, layout, x)
        for entry in layout:
            zeros = x[entry.slice] == 0
            if zeros.sum() >= share * entry.size:
                assert not back[entry.slice][zeros].any(), name


def variance(codec, layout, x):
    """What theory allows ‖x̂ − x‖² to be on average."""
    energy = float((x.astype(np.float64) ** 2).sum())
    if codec.id == "terngrad":
        starts = runs(layout)[0]
        scales, sums = (rule.reduceat(np.abs(x).astype(np.float64), starts) for rule in (np.maximum, np.add))
        return float((scales * sums).sum()) - energy
    if codec.id == "qsgd":
        return min(codec.bucket / codec.levels**2, np.sqrt(codec.bucket) / codec.levels) * energy
    if codec.id == "count-sketch":
        return x.size / max(codec._columns(x.size), 1) * energy
    return energy  # small blocks are not Gaussian: π / 2 − 1 of it is what long vectors have


@pytest.mark.parametrize("codec", [c for c in UPDATES if c.id in STOCHASTIC], ids=lambda c: c.id)
def test_draws_are_as_far_off_as_theory_says_and_right_on_average(codec):
    draws = 40
    for name, (layout, x) in zoo().items():
        if not x.any():
            assert not sent(codec, layout, x).any(), name
            continue
        total, squares = np.zeros(x.size), []
        for seed in range(draws):
            back = sent(codec, layout, x, seed)
            assert np.isfinite(back).all(), name
            total += back.astype(np.float64) / draws
            squares.append(float(((back.astype(np.float64) - x) ** 2).sum()))
        allowed = variance(codec, layout, x)
        energy = float((x.astype(np.float64) ** 2).sum())
        assert np.mean(squares) <= 1.5 * allowed + 1e-6 * energy, name
        if codec.id in ("terngrad", "qsgd"):  # the others are unbiased for one row, or for long vectors
            assert ((total - x) ** 2).sum() <= 4 * allowed / draws + 1e-6 * energy, name


def test_two_hundred_random_updates_and_targets_of_thin():
    draw = np.random.default_rng(0)
    for number in range(200):
        layout, x = random_update(draw)
        target = {
            "nmse": float(10 ** draw.uniform(-5, 0)),
            "bits": float(10 ** draw.uniform(-1.5, 1)),
            "bytes": int(10 ** draw.uniform(0.7, 3.5)),
        }
        kind = ("nmse", "bits", "bytes")[number % 3]
        codec = Thin(**{kind: target[kind]})
        got = codec.encoded(x, Context(layout))
        found = nmse(x, codec.decode(got.payload, Context(layout)))
        size = len(got.payload) if kind == "bytes" else 8 * len(got.payload) / max(x.size, 1)
        reached = (found if kind == "nmse" else size) <= target[kind]
        assert got.reached == reached, (number, target[kind])
        assert reached or kind != "nmse", (number, target[kind], found)
        assert reached == (not got.reason) == (not missed(codec, found, len(got.payload), x.size))
        assert reached or len(got.payload) < 16 or layout.size == 0, (number, kind, target[kind], len(got.payload))
        assert found <= 1
        assert found < 1 or not x.any(), "something is always sent"
