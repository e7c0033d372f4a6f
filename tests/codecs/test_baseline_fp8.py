"""fp8: codes against another implementation, the scale, ties and bounds."""

import numpy as np
import pytest
import torch
from baseline_checks import (
    COMMON,
    MIXED,
    flat,
    gaussian,
    nmse,
    sent,
)

from thinwire.codecs import Context
from thinwire.codecs.fp8 import FP8
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
both = pytest.mark.parametrize("name", LARGEST)


def with_largest(name, x):
    """The array with the format's largest value behind it: the exponent is then 0."""
    return np.append(x, LARGEST[name]).astype(np.float32)


@both
def test_codes_are_those_of_torch(name):
    """Values, half-way points, their neighbours and random ones, all binades."""
    values = torch.arange(256, dtype=torch.uint8).view(TORCH[name]).float().numpy()
    values = np.unique(values[np.isfinite(values)])
    halves = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(halves, np.float32(way)) for way in (-np.inf, np.inf)]
    spread = gaussian(20_000) * np.exp2(np.random.default_rng(1).uniform(-20, 4, 20_000))
    x = with_largest(name, np.concatenate([values, halves, *near, spread, [-0.0]]))
    payload = FP8(name).encode(x, flat(x.size))
    assert payload[0] == 127
    assert payload[1:] == torch.from_numpy(x).to(TORCH[name]).view(torch.uint8).numpy().tobytes()
    back = FP8(name).decode(payload, flat(x.size))
    assert back.tobytes() == torch.from_numpy(x).to(TORCH[name]).float().numpy().tobytes()


@pytest.mark.parametrize(
    ("name", "code", "value"),
    [
        ("e4m3", 0x01, 2.0**-9), ("e4m3", 0x07, 7 * 2.0**-9), ("e4m3", 0x08, 2.0**-6), ("e4m3", 0x38, 1.0),
        ("e4m3", 0x7E, 448.0), ("e4m3", 0xFE, -448.0), ("e5m2", 0x01, 2.0**-16), ("e5m2", 0x04, 2.0**-14),
        ("e5m2", 0x3C, 1.0), ("e5m2", 0x7B, 57344.0), ("e5m2", 0x80, -0.0),
    ],
)  # fmt: skip
def test_values_of_the_published_table(name, code, value):
    back = FP8(name).decode(bytes([127, code]), flat(1))
    assert back.tobytes() == np.float32(value).tobytes()


@both
@pytest.mark.parametrize("power", [-100, -7, 0, 1, 90])
def test_a_power_of_two_moves_into_the_exponent(name, power):
    x = with_largest(name, 100 * gaussian(500))
    payload, plain = FP8(name).encode(np.ldexp(x, power), flat(501)), FP8(name).encode(x, flat(501))
    assert payload[0] == 127 + power
    assert payload[1:] == plain[1:]


@both
def test_nothing_is_cut_off(name):
    """The largest entry keeps its relative error, just below and just above a change of exponent."""
    top = LARGEST[name] / 2 ** np.floor(np.log2(LARGEST[name]))
    for value in (1.0, top, np.nextafter(np.float32(top), np.float32(2)), 1.99999):
        for power in (-100, -20, 0, 5, 127):
            x = np.array([np.ldexp(value, power)], np.float32)
            assert sent(FP8(name), x, flat(1)) == pytest.approx(x, rel=2.0**-4 if name == "e4m3" else 2.0**-3)


@both
def test_error_bounds(name):
    mantissa, lowest = (3, -6) if name == "e4m3" else (2, -14)
    x = with_largest(name, gaussian(20_000) * np.exp2(np.random.default_rng(1).uniform(-20, 4, 20_000)))
    bound = np.maximum(np.abs(x) * 2.0 ** -(mantissa + 1), 2.0 ** (lowest - mantissa - 1))
    assert (np.abs(sent(FP8(name), x, flat(x.size)) - x) <= bound).all()


@pytest.mark.parametrize(("name", "error"), [("e4m3", 7.1e-4), ("e5m2", 2.8e-3)])
def test_error_of_gaussian_entries(name, error):
    assert nmse(FP8(name), gaussian(100_000), flat(100_000)) == pytest.approx(error, rel=0.05)


def test_size_is_a_byte_an_entry_and_a_byte_a_tensor():
    assert len(FP8().encode(gaussian(MIXED.size), Context(MIXED))) == 4 + MIXED.size
    assert FP8().encode(gaussian(0), flat(0)) == b""


def test_every_tensor_has_an_exponent_of_its_own():
    context = Context(Layout.of({"a": (2,), "none": (0,), "b": (2,)}))
    x = np.array([1e-20, -1e-20, 1e20, 1e20], np.float32)
    assert sent(FP8(), x, context) == pytest.approx(x, rel=2.0**-4)


def test_what_no_writer_makes_is_refused():
    for codec, codes in ((FP8("e4m3"), (0x7F, 0xFF)), (FP8("e5m2"), (0x7C, 0x7D, 0xFC, 0xFF))):
        for code in codes:
            with pytest.raises(DecodeError, match="code above"):
                codec.decode(bytes([127, code]), flat(1))
        with pytest.raises(DecodeError, match="exponent byte of 255"):
            codec.decode(bytes([255, 0]), flat(1))


def test_other_formats_are_refused():
    with pytest.raises(ConfigError, match=r"fp8.format = 'e3m4': e4m3 or e5m2"):
        FP8("e3m4")


@both
@pytest.mark.parametrize("check", COMMON)
def test_common(name, check):
    check(FP8(name))
