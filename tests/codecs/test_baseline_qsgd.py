"""qsgd: unbiased, the variance of the paper, buckets and bytes."""

import numpy as np
import pytest
from baseline_checks import (
    COMMON,
    check_bad_scales,
    check_rounds_to,
    check_seed_matters,
    entropy_bytes,
    flat,
    gaussian,
    nmse,
    sent,
)

from thinwire.codecs import Context, Mask, Votes
from thinwire.codecs.qsgd import QSGD
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

FORMS = [QSGD(), QSGD(levels=1, bucket=0, norm="max"), QSGD(levels=4, bucket=100), QSGD(levels=1000, norm="max")]
forms = pytest.mark.parametrize("codec", FORMS, ids=["default", "ternary", "coarse", "fine"])


def test_the_bytes():
    """Multiples of norm / s are sent as they are: nothing is left to chance here."""
    x, context = np.array([4, -1, 0, 2, -3], np.float32), Context(Layout.of({"a": (4,), "none": (0,), "b": ()}))
    payload = QSGD(levels=4, bucket=3, norm="max").encode(x, context)
    norms = np.array([4, 2, 3], "<f4").tobytes()
    labels = np.array([8, 1, 0, 8, 7], np.uint32)  # +4, −1, 0 of 4; +4 of 2; −4 of 3
    assert payload == norms + Votes().encode(labels, Context(context.layout))
    assert QSGD(levels=4, bucket=3, norm="max").decode(payload, context).tolist() == x.tolist()


@pytest.mark.parametrize("levels", [1, 7, 16, 1000, 2**20])
@pytest.mark.parametrize("norm", ["l2", "max"])
def test_every_entry_goes_to_one_of_its_two_neighbours(levels, norm):
    x = gaussian(1000)
    step = (np.abs(x).max() if norm == "max" else np.sqrt((x.astype(np.float64) ** 2).sum())) / levels
    back = sent(QSGD(levels, 0, norm), x, flat(1000))
    assert (np.abs(back - x) <= step * (1 + 1e-4) + 1e-6).all()
    assert (np.sign(back) * np.sign(x) >= 0).all()
    assert np.allclose(back / step, np.rint(back / step), atol=1e-3 + 1e-6 * levels)


@forms
@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_unbiased(codec, scale):
    """One bucket of 100 entries, so that all of them have the same step."""
    x = (np.float32(scale) * gaussian(100)).astype(np.float32)
    norm = np.abs(x).max() if codec.norm == "max" else np.sqrt((x.astype(np.float64) ** 2).sum())
    check_rounds_to(codec, x, x, float(norm) / codec.levels)


def dithered(step):
    """E[(x̂ − x)²] for standard normal entries and stochastic rounding to multiples of `step`, by a fine sum."""
    x = np.linspace(-10, 10, 400_001)
    part = np.abs(x) / step % 1
    return float((part * (1 - part) * np.exp(-x * x / 2)).sum() / np.exp(-x * x / 2).sum() * step**2)


@pytest.mark.parametrize(("levels", "bucket"), [(16, 512), (4, 512), (64, 512), (16, 2048), (16, 128)])
def test_error_is_that_of_theory(levels, bucket):
    n = 200 * 2048
    theory = dithered(np.sqrt(bucket) / levels)
    assert nmse(QSGD(levels, bucket), gaussian(n), flat(n)) == pytest.approx(theory, rel=0.02)
    assert theory <= min(bucket / levels**2, np.sqrt(bucket) / levels)  # Lemma 3.1


def test_error_of_the_default_is_one_third():
    assert dithered(np.sqrt(512) / 16) == pytest.approx(0.333, abs=0.001)


def test_buckets_do_not_cross_tensors():
    context = Context(Layout.of({"a": (700,), "none": (0,), "b": (3,), "c": (512,)}))
    payload = QSGD().encode(np.ones(1215, np.float32), context)
    norms = np.frombuffer(payload, "<f4", 4)
    assert norms == pytest.approx(np.sqrt([512, 188, 3, 512]))


@pytest.mark.parametrize(("bucket", "norms"), [(0, 3), (1, 40), (7, 8), (10**9, 3)])
def test_number_of_norms(bucket, norms):
    """Labels are all zero for a zero vector: what is left is the norms."""
    context = Context(Layout.of({"a": (30,), "b": (9,), "none": (0,), "c": ()}))
    coded = Votes().encode(np.zeros(40, np.uint32), context)
    assert len(QSGD(bucket=bucket).encode(np.zeros(40, np.float32), context)) == 4 * norms + len(coded)


def test_size_is_the_entropy_of_the_levels():
    x = gaussian(512 * 200)
    payload, back = QSGD(norm="max").encode(x, flat(x.size)), sent(QSGD(norm="max"), x, flat(x.size))
    norms = np.repeat(np.frombuffer(payload, "<f4", 200), 512)
    levels = np.rint(back / norms * 16).astype(int) + 16
    assert len(payload) == pytest.approx(4 * 200 + entropy_bytes(levels), rel=0.002)


def test_a_norm_beyond_float32_stays_exact_for_its_largest_entries():
    x = np.array([np.finfo(np.float32).max] * 4, np.float32)
    assert sent(QSGD(), x, flat(4)).tolist() == x.tolist()


def test_labels_above_twice_the_levels_are_refused():
    payload = np.float32(1).tobytes() + Votes().encode(np.array([0, 33], np.uint32), flat(2))
    with pytest.raises(DecodeError, match="33 is above 32"):
        QSGD().decode(payload, flat(2))
    check_bad_scales(QSGD(), flat(3))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"levels": 0}, "levels = 0"),
        ({"levels": 2**20 + 1}, "levels = 1048577"),
        ({"bucket": -1}, "bucket = -1"),
        ({"norm": "l1"}, "norm = 'l1': l2 or max"),
        ({"labels": Mask()}, "labels = 'mask'"),
    ],
)
def test_fields_out_of_range(fields, named):
    with pytest.raises(ConfigError, match=f"qsgd.{named}"):
        QSGD(**fields)


@forms
@pytest.mark.parametrize("check", COMMON)
def test_common(codec, check):
    check(codec)


def test_seed_matters():
    check_seed_matters(QSGD())
