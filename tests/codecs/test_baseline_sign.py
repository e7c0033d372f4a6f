"""signsgd: the bytes, the scale, the error that theory names."""

import numpy as np
import pytest
from baseline_checks import (
    COMMON,
    MIXED,
    check_bad_scales,
    flat,
    gaussian,
    nmse,
    sent,
)

from thinwire.codecs import Context
from thinwire.codecs.sign import SignSGD
from thinwire.errors import DecodeError
from thinwire.layout import Layout


def test_the_bytes():
    context = Context(Layout.of({"a": (3,), "none": (0,), "b": ()}))
    payload = SignSGD().encode(np.array([1, -2, 3, -0.5], np.float32), context)
    assert payload.hex() == "00000040" + "0000003f" + "0a"  # 2.0, 0.5, bits 1 and 3
    assert SignSGD().decode(payload, context).tolist() == [2, -2, 2, -0.5]


def test_zero_counts_as_plus():
    assert sent(SignSGD(), np.array([0.0, -0.0, -3.0], np.float32), flat(3)).tolist() == [1, 1, -1]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_size_is_a_bit_an_entry_and_a_scale_a_tensor(n):
    assert len(SignSGD().encode(gaussian(n), flat(n))) == 4 * (n > 0) + (n + 7) // 8
    assert len(SignSGD().encode(gaussian(MIXED.size), Context(MIXED))) == 4 * 4 + (MIXED.size + 7) // 8


def test_error_is_that_of_theory():
    assert nmse(SignSGD(), gaussian(200_000), flat(200_000)) == pytest.approx(1 - 2 / np.pi, rel=0.01)
    assert nmse(SignSGD(), np.array([2, -2, 2], np.float32), flat(3)) == 0


def test_every_tensor_has_a_scale_of_its_own():
    context = Context(Layout.of({"a": (2,), "b": (2,)}))
    assert sent(SignSGD(), np.array([1, -1, 100, -300], np.float32), context).tolist() == [1, -1, 200, -200]


def test_spare_bits_and_bad_scales_are_refused():
    payload = SignSGD().encode(np.ones(3, np.float32), flat(3))
    for bit in range(3, 8):
        with pytest.raises(DecodeError, match="spare bit"):
            SignSGD().decode(payload[:4] + bytes([1 << bit]), flat(3))
    check_bad_scales(SignSGD(), flat(3))


def test_the_seed_does_not_matter():
    assert SignSGD().encode(gaussian(50), flat(50, 1)) == SignSGD().encode(gaussian(50), flat(50, 2))


@pytest.mark.parametrize("check", COMMON)
def test_common(check):
    check(SignSGD())
