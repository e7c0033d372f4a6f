"""terngrad: unbiased without clipping, the variance of the paper, the bytes of its labels."""

import numpy as np
import pytest
from baseline_checks import (
    COMMON,
    MIXED,
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
from thinwire.codecs.terngrad import TernGrad
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout


def test_the_bytes():
    """Entries of the largest magnitude are always sent, zeros never: nothing is left to chance here."""
    x, context = np.array([2, 0, -2, 0, 0.5], np.float32), Context(Layout.of({"a": (4,), "none": (0,), "b": ()}))
    payload = TernGrad().encode(x, context)
    labels = np.array([1, 0, 2, 0, 1], np.uint32)
    assert payload == bytes.fromhex("00000040" + "0000003f") + Votes().encode(labels, Context(context.layout))
    assert TernGrad().decode(payload, context).tolist() == x.tolist()


def test_values_are_ternary():
    x = gaussian(1000)
    back = sent(TernGrad(), x, flat(1000))
    assert set(np.unique(back)) <= {-np.abs(x).max(), 0, np.abs(x).max()}
    assert (np.sign(back) * np.sign(x) >= 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_unbiased(scale):
    x = np.float32(scale) * gaussian(300)
    check_rounds_to(TernGrad(), x, x, float(np.abs(x).max()))


def test_clipping_keeps_its_bias():
    """With a cut the mean is the cut vector, not the vector."""
    x = gaussian(400)
    s = 1.5 * x.std(dtype=np.float64)
    assert np.abs(x).max() > s
    check_rounds_to(TernGrad(clip=1.5), x, np.clip(x, -s, s), s)


def test_error_is_that_of_theory():
    x = gaussian(200_000).astype(np.float64)
    theory = np.abs(x).max() * np.abs(x).sum() / (x**2).sum() - 1
    assert nmse(TernGrad(), x.astype(np.float32), flat(x.size)) == pytest.approx(theory, rel=0.02)


def test_a_cut_beyond_the_largest_entry_changes_nothing():
    x = gaussian(1000)
    assert TernGrad(clip=100.0).encode(x, flat(1000)) == TernGrad().encode(x, flat(1000))
    assert sent(TernGrad(clip=2.5), np.full(9, 3, np.float32), flat(9)).tolist() == [0] * 9  # no deviation, all is cut


def test_size_is_the_entropy_of_the_labels():
    x = gaussian(100_000)
    payload, back = TernGrad().encode(x, flat(x.size)), sent(TernGrad(), x, flat(x.size))
    assert len(payload) == pytest.approx(entropy_bytes((np.sign(back) + 1).astype(int)), rel=0.002)


def test_labels_above_two_are_refused():
    payload = np.float32(1).tobytes() + Votes().encode(np.array([0, 3], np.uint32), flat(2))
    with pytest.raises(DecodeError, match="3 is above 2"):
        TernGrad().decode(payload, flat(2))
    check_bad_scales(TernGrad(), flat(3))


@pytest.mark.parametrize("clip", [-1.0, 1001.0, np.nan, np.inf])
def test_clip_out_of_range(clip):
    with pytest.raises(ConfigError, match=r"terngrad.clip = .*standard deviations"):
        TernGrad(clip=clip)


def test_labels_need_a_coder_of_whole_numbers():
    with pytest.raises(ConfigError, match=r"terngrad.labels = 'mask'"):
        TernGrad(labels=Mask())


@pytest.mark.parametrize("codec", [TernGrad(), TernGrad(clip=2.5)], ids=["paper", "clip"])
@pytest.mark.parametrize("check", COMMON)
def test_common(codec, check):
    check(codec)


def test_seed_matters():
    check_seed_matters(TernGrad())
    assert len(TernGrad().encode(np.zeros(MIXED.size, np.float32), Context(MIXED))) < 40
