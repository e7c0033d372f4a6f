"""`lloyd`: the facts that M22 is built on, its payload byte by byte, hostile payloads, odd inputs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import Context, Float32, Votes, to_config, varint
from thinwire.codecs.config import from_config, tag
from thinwire.codecs.lloyd import Lloyd
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

CLASSES = {"lloyd": Lloyd, "votes": Votes, "float32": Float32}
SEVERAL = Layout.of({"a": (40, 5), "none": (0, 3), "scalar": (), "b": (7,)})


def single(n):
    return Context(Layout.of({"a": (n,)}))


def laplace(n=400_000, seed=0):
    return np.random.default_rng(seed).laplace(size=n).astype(np.float32)


def there_and_back(codec, x, context=None):
    context = context or single(x.size)
    payload = codec.encode(x, context)
    back = codec.decode(payload, context)
    assert back.dtype == np.float32
    assert back.shape == x.shape
    assert np.isfinite(back).all()
    return payload, back


def nmse(x, back):
    x = x.astype(np.float64)
    return float(((x - back) ** 2).sum() / (x**2).sum())


def labels_of(payload, n):
    reader = varint.Reader(payload)
    return Votes().decode(reader.take(reader.next()), single(n))


def entropy(labels):
    p = np.bincount(labels) / labels.size
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def forged(labels, book):
    """A payload of one tensor with these labels and this book."""
    coded = Votes().encode(np.array(labels, np.uint32), single(len(labels)))
    return varint.write([len(coded)]) + coded + book


# What M22 rests on.


@pytest.mark.parametrize(("magnitude", "error", "bits"), [(0.0, 0.176, 1.73), (2.0, 1.00, 1.18)])
def test_laplacian_at_two_bits(magnitude, error, bits):
    """Without selection M = 2 inflates the update, and skews the labels."""
    x = laplace()
    payload, back = there_and_back(Lloyd(magnitude=magnitude), x)
    assert nmse(x, back) == pytest.approx(error, rel=0.02)
    assert entropy(labels_of(payload, x.size)) == pytest.approx(bits, abs=0.01)
    assert 8 * len(payload) / x.size == pytest.approx(bits, abs=0.01)


@pytest.mark.parametrize("bits", range(1, 9))
def test_more_bits_less_error(bits):
    x = laplace(50_000)
    error = [nmse(x, there_and_back(Lloyd(bits=b), x)[1]) for b in (bits, bits + 1) if b <= 8]
    assert error == sorted(error, reverse=True)
    assert error[0] < 2.2 * 4.0**-bits * 4.5


@pytest.mark.parametrize("family", ["gennorm", "weibull"])
def test_each_magnitude_is_best_under_its_own_distortion(family):
    x = np.random.default_rng(1).gamma(1.0, 1.0, 200_000)
    x = (x * np.random.default_rng(2).choice([-1, 1], x.size)).astype(np.float32)
    backs = {m: there_and_back(Lloyd(family, m, 2), x)[1].astype(np.float64) for m in (0.0, 1.0, 2.0, 4.0)}
    for own in backs:
        weight = np.abs(x.astype(np.float64)) ** own
        costs = {m: (weight * (x - back) ** 2).sum() for m, back in backs.items()}
        assert min(costs, key=costs.get) == own


def test_survivors_are_fitted_above_their_threshold():
    """A whole law of the survivors of keep = .1 has NMSE .11 at two bits; cut off at the threshold it has .030."""
    x = laplace(500_000)
    x = x[np.abs(x) >= np.quantile(np.abs(x), 0.9)]
    assert nmse(x, there_and_back(Lloyd(), x)[1]) == pytest.approx(0.03, rel=0.04)


def test_every_tensor_has_its_own_law_and_scale():
    draw = np.random.default_rng(3)
    parts = [1e-6 * draw.standard_normal(5000), 1e3 * draw.laplace(size=5000), draw.standard_t(6, 5000)]
    layout = Layout.of({str(i): (5000,) for i in range(3)})
    _, back = there_and_back(Lloyd(bits=3), np.concatenate(parts).astype(np.float32), Context(layout))
    for part, entry in zip(parts, layout, strict=True):
        assert nmse(part, back[entry.slice]) < 0.15
        alone = there_and_back(Lloyd(bits=3), part.astype(np.float32))[1]
        assert np.array_equal(alone, back[entry.slice])


def test_values_change_sign_with_their_entries():
    x = laplace(3001)
    assert np.array_equal(there_and_back(Lloyd(bits=4), -x)[1], -there_and_back(Lloyd(bits=4), x)[1])


def test_scaling_by_a_power_of_two_scales_the_values():
    x = laplace(3000)
    assert np.array_equal(there_and_back(Lloyd(bits=3), x * 2**-20)[1], there_and_back(Lloyd(bits=3), x)[1] * 2**-20)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_every_entry_takes_the_nearest_centre(bits):
    x = laplace(5000)
    _, back = there_and_back(Lloyd(magnitude=1.0, bits=bits), x)
    values = np.unique(np.abs(back))
    values = np.concatenate([-values, values])
    nearest = np.abs(x[:, None] - values).min(axis=1)
    assert np.abs(x - back) == pytest.approx(nearest, abs=float(x.max()) * 2**-11)


# M: a number, chosen, scheduled.


@pytest.mark.parametrize("law", ["laplace", "heavy", "clipped"])
def test_auto_is_the_least_squared_error_of_those_it_tries(law):
    draw = np.random.default_rng(5)
    x = {"laplace": draw.laplace(size=20_000), "heavy": draw.standard_t(2, 20_000)}.get(law)
    x = np.where(draw.random(20_000) < 0.5, 1e-3, draw.choice([-1, 1], 20_000)) if x is None else x
    x = x.astype(np.float32)
    errors = [nmse(x, there_and_back(Lloyd(magnitude=m), x)[1]) for m in (0, 1, 2, 4, 6)]
    assert nmse(x, there_and_back(Lloyd(magnitude="auto"), x)[1]) == pytest.approx(min(errors), rel=1e-6)


def test_auto_chooses_for_every_tensor():
    x = np.concatenate([laplace(3000), np.where(np.arange(3000) % 9, 1e-3, 1).astype(np.float32)])
    context = Context(Layout.of({"a": (3000,), "b": (3000,)}))
    error = [nmse(x, there_and_back(Lloyd(magnitude=m), x, context)[1]) for m in ("auto", 0, 1, 2, 4, 6)]
    assert error[0] <= min(error[1:])


def test_the_reader_needs_neither_family_nor_magnitude():
    x = laplace(1000)
    payload, back = there_and_back(Lloyd("weibull", 4.0, 3), x)
    for codec in (Lloyd(bits=3), Lloyd(bits=3, magnitude="auto"), Lloyd(bits=3, magnitude=((0, 1.0),))):
        assert np.array_equal(codec.decode(payload, single(1000)), back)


def test_a_schedule_is_resolved_by_round():
    codec = Lloyd(magnitude=((0, 4.0), (10, 2.0), (20, 0)), bits=3)
    assert [codec.at(round).magnitude for round in (0, 9, 10, 19, 20, 999)] == [4.0, 4.0, 2.0, 2.0, 0.0, 0.0]
    assert codec.at(3) == Lloyd(magnitude=4.0, bits=3)
    with pytest.raises(ConfigError, match=r"lloyd.magnitude.*at\(round\)"):
        codec.encode(laplace(10), single(10))


@pytest.mark.parametrize("magnitude", [0.0, 2.5, "auto"])
def test_without_a_schedule_every_round_has_the_codec_itself(magnitude):
    codec = Lloyd(magnitude=magnitude)
    assert codec.at(0) is codec
    assert codec.at(100) is codec


# Configuration.


@pytest.mark.parametrize("magnitude", [0.0, 1.5, 64.0, "auto", ((0, 4.0),), ((0, 4.0), (10, 2.0))])
def test_configuration_round_trip(magnitude):
    codec = Lloyd("weibull", magnitude, 3)
    again = from_config(json.loads(json.dumps(to_config(codec))), CLASSES)
    assert again == codec
    assert tag(again) == tag(codec)
    assert hash(again) == hash(codec)


def test_two_and_two_point_nought_are_one_codec():
    assert tag(Lloyd(magnitude=2)) == tag(Lloyd(magnitude=2.0))
    assert tag(Lloyd(magnitude=((0, 2),))) == tag(Lloyd(magnitude=((0, 2.0),)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("family", value) for value in ("normal", "", None, 3)],
        *[("bits", value) for value in (0, 9, -1, 2.0, "2", True, None)],
        *[("labels", value) for value in (Float32(), None, "votes")],
        *[("magnitude", value) for value in (-0.1, 64.1, np.nan, np.inf, True, None, "best", [], ())],
        *[("magnitude", value) for value in (((1, 2.0),), ((0, 2.0), (0, 1.0)), ((0, 1.0), (9, 1.0), (5, 1.0)))],
        *[("magnitude", value) for value in (((0,),), (0, 2.0), ((0, "auto"),), ((0.0, 1.0),), ((0, -1.0),), ("ab",))],
        *[("magnitude", value) for value in (((False, 1.0),), ((0, True),), ((0, ((0, 1.0),)),))],
    ],
)
def test_fields_out_of_range(field, value):
    with pytest.raises(ConfigError, match="lloyd\\."):
        Lloyd(**{field: value})


# Bytes.


def test_payload_byte_by_byte():
    x = np.array([-3.0, -3.0, 3.0, 3.0], np.float32)
    payload, back = there_and_back(Lloyd(bits=2), x)
    assert np.array_equal(back, x)
    coded = Votes().encode(np.array([0, 0, 3, 3], np.uint32), single(4))
    assert payload == bytes([len(coded)]) + coded + np.float32(3).tobytes()


def test_labels_ascend_and_only_used_centres_are_sent():
    reader = varint.Reader(Lloyd(bits=2).encode(np.array([-9, 1, 1.5, 9.5, -1], np.float32), single(5)))
    assert Votes().decode(reader.take(reader.next()), single(5)).tolist() == [0, 2, 2, 3, 1]
    assert len(reader.rest()) == 4 + 2
    reader = varint.Reader(Lloyd(bits=8).encode(np.array([-9, 1, 1.5, 9.5, -1], np.float32), single(5)))
    reader.take(reader.next())
    assert len(reader.rest()) <= 4 + 2 * 4


def test_a_payload_made_by_hand():
    book = np.float32(4).tobytes() + np.float16(0.25).tobytes()
    back = Lloyd(bits=2).decode(forged([0, 1, 2, 3, 3], book), single(5))
    assert back.tolist() == [-4, -1, 1, 4, 4]
    back = Lloyd(bits=3).decode(forged([3, 3, 4], np.float32(7).tobytes()), single(3))
    assert back.tolist() == [-7, -7, 7]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_centres_cost_at_most_what_is_promised(bits):
    x = laplace(3000)
    reader = varint.Reader(Lloyd(bits=bits).encode(x, single(3000)))
    reader.take(reader.next())
    assert len(reader.rest()) == {1: 4, 2: 6, 4: 18}[bits]


def test_same_bytes_every_time():
    x, context = laplace(207), Context(SEVERAL.restrict(np.ones(SEVERAL.size, np.uint8)))
    x = np.append(x, x[:1])
    for codec in (Lloyd(), Lloyd(magnitude=2.0, bits=4), Lloyd("weibull", "auto", 3)):
        before = x.copy()
        first = codec.encode(x, context)
        assert np.array_equal(x, before)
        there_and_back(codec, 1e5 * laplace(1000))
        assert codec.encode(x, context) == first


# Odd inputs.

ODD = {
    "zeros": np.zeros(9),
    "minus zeros": np.full(9, -0.0),
    "constant": np.full(9, -0.37),
    "one entry": np.array([2.5]),
    "two entries": np.array([2.5, -1e-3]),
    "both signs": np.array([1.5, -1.5, 1.5]),
    "one in many": np.append(np.zeros(500), 1.0),
    "tiny": np.full(9, 1e-45),
    "tiny and two": np.array([1e-45, 3e-45, -1e-45]),
    "largest": np.full(9, np.finfo(np.float32).max),
    "largest and least": np.array([np.finfo(np.float32).max, 1e-45, -np.finfo(np.float32).max, 0]),
    "wide": np.logspace(-38, 38, 50),
    "nearly constant": 1 + np.arange(50) * 1e-7,
    "cauchy": 1e30 * np.random.default_rng(0).standard_cauchy(300),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "codec", [Lloyd(), Lloyd("weibull", 2.0, 1), Lloyd(magnitude=6.0, bits=8), Lloyd(magnitude="auto")]
)
def test_odd_inputs(name, codec):
    x = ODD[name].astype(np.float32)
    _, back = there_and_back(codec, x)
    if np.unique(np.abs(x)).size == 1:
        assert np.array_equal(back, x)
    assert np.abs(back).max() <= np.abs(x).max()


@pytest.mark.parametrize("layout", [Layout.of({}), Layout.of({"a": (0,), "b": (2, 0)}), SEVERAL, Layout.of({"a": ()})])
def test_odd_layouts(layout):
    x = laplace(max(layout.size, 1))[: layout.size]
    payload, _ = there_and_back(Lloyd(), x, Context(layout))
    assert layout.size or len(payload) <= 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite(bad):
    with pytest.raises(ConfigError, match="finite"):
        Lloyd().encode(np.array([1, bad, 2], np.float32), single(3))


def test_wrong_arrays():
    for x in (np.zeros(3), np.zeros(4, np.float32), np.zeros((3, 1), np.float32)):
        with pytest.raises(ConfigError):
            Lloyd().encode(x, single(3))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_any_finite_numbers(values, bits):
    x = np.array(values, np.float32)
    context = Context(Layout.of({"a": (x.size // 2,), "b": (x.size - x.size // 2,)}))
    there_and_back(Lloyd(magnitude=1.5, bits=bits), x, context)


# Hostile payloads.


def refused_or_right(codec, payload, context):
    try:
        back = codec.decode(payload, context)
    except DecodeError:
        return False
    assert back.shape == (context.layout.size,)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    return True


@pytest.mark.parametrize("codec", [Lloyd(), Lloyd(bits=5)])
def test_cut_and_longer_payloads_are_refused(codec):
    context = Context(SEVERAL)
    payload = codec.encode(laplace(SEVERAL.size), context)
    for cut in range(len(payload)):
        assert not refused_or_right(codec, payload[:cut], context)
    for more in (b"\0", b"\1", b"more"):
        assert not refused_or_right(codec, payload + more, context)


@pytest.mark.parametrize("codec", [Lloyd(), Lloyd(bits=5)])
def test_changed_payloads_are_refused_or_give_the_right_size(codec):
    context, draw = Context(SEVERAL), np.random.default_rng(0)
    payload = codec.encode(laplace(SEVERAL.size), context)
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        refused_or_right(codec, bytes(flipped), context)
    for _ in range(300):
        refused_or_right(codec, draw.bytes(int(draw.integers(0, 60))), context)


@pytest.mark.parametrize(
    ("labels", "book", "reason"),
    [
        ([0, 4], b"\0" * 6, "above 3"),
        ([0, 3], b"\0" * 3, "bytes left"),
        ([0, 3], b"\0" * 6, "left over"),
        ([0, 2], b"\0" * 4, "bytes left"),
        ([0, 3], np.float32(-1).tobytes(), "negative, NaN or infinite"),
        ([0, 3], np.float32(np.inf).tobytes(), "negative, NaN or infinite"),
        ([0, 2], np.float32(1).tobytes() + np.float16(np.nan).tobytes(), "from 0 to 1"),
        ([0, 2], np.float32(1).tobytes() + np.float16(2).tobytes(), "from 0 to 1"),
    ],
)
def test_forged_payloads_say_why(labels, book, reason):
    with pytest.raises(DecodeError, match=reason):
        Lloyd().decode(forged(labels, book), single(2))
