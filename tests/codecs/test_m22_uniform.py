"""`uniform`: the mid-rise quantiser, its two ways to choose a step, its payload."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import Context, Float32, Votes, to_config
from thinwire.codecs.config import from_config
from thinwire.codecs.lloyd import Lloyd
from thinwire.codecs.uniform import Uniform
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

SEVERAL = Layout.of({"a": (40, 5), "none": (0, 3), "scalar": (), "b": (7,)})
LARGEST = float(np.finfo(np.float32).max)


def single(n):
    return Context(Layout.of({"a": (n,)}))


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


def normal(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1188), (3, 0.03744), (4, 0.01154), (5, 0.003495)])
def test_gaussian_error_is_that_of_the_table(bits, error):
    """Max 1960, table II: the best equidistant quantiser of N(0, 1)."""
    x = normal(300_000)
    assert nmse(x, there_and_back(Uniform(bits=bits), x)[1]) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
@pytest.mark.parametrize("law", ["normal", "laplace", "heavy", "two"])
def test_the_search_finds_the_best_step(bits, law):
    """Against a scan of two thousand steps."""
    draw = np.random.default_rng(4)
    x = {
        "normal": draw.standard_normal(4000),
        "laplace": draw.laplace(size=4000),
        "heavy": draw.standard_t(2, 4000),
        "two": draw.choice([-1.0, 1.0, 3.0], 4000),
    }[law].astype(np.float32)
    best, top = 1.0, np.abs(x).max()
    for half in np.geomspace(top / 2**bits / 300, 1.1 * top, 2000):
        level = 2 * np.minimum(np.floor(np.abs(x) / (2 * half)), 2 ** (bits - 1) - 1) + 1
        best = min(best, nmse(np.abs(x), level * half))
    assert nmse(x, there_and_back(Uniform(bits=bits), x)[1]) <= 1.02 * best + 1e-6


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 16])
def test_maximum_bounds_the_error_by_half_a_step(bits):
    x = normal(5000)
    payload, back = there_and_back(Uniform(bits=bits, step="max"), x)
    half = np.abs(x).max() / 2**bits
    assert np.frombuffer(payload[:4], "<f4")[0] == pytest.approx(half, rel=1e-6)
    assert np.abs(x - back).max() <= half + 1e-7 * np.abs(x).max()


def test_levels_are_symmetric_and_equidistant_without_zero():
    x = np.linspace(-1, 1, 1001).astype(np.float32)
    levels = np.unique(there_and_back(Uniform(bits=3, step="max"), x)[1])
    assert levels.tolist() == [-0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_lloyd_beats_it_on_heavy_tails(bits):
    x = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    assert nmse(x, there_and_back(Lloyd(bits=bits), x)[1]) < 0.95 * nmse(x, there_and_back(Uniform(bits=bits), x)[1])


def test_every_tensor_has_its_own_step():
    x = np.concatenate([1e-6 * normal(500), 1e6 * normal(500, seed=1)])
    layout = Layout.of({"a": (500,), "b": (500,)})
    _, back = there_and_back(Uniform(bits=4), x, Context(layout))
    assert all(nmse(x[entry.slice], back[entry.slice]) < 0.02 for entry in layout)


# Bytes.


def test_payload_byte_by_byte():
    x, layout = np.array([-3.5, -0.4, 0.6, 4, 8], np.float32), Layout.of({"a": (4,), "none": (0,), "b": (1,)})
    payload, back = there_and_back(Uniform(bits=2, step="max"), x, Context(layout))
    labels = Votes().encode(np.array([0, 1, 2, 3, 3], np.uint32), Context(layout))
    assert payload == np.array([1, 2], "<f4").tobytes() + labels
    assert back.tolist() == [-3, -1, 1, 3, 6]


def test_same_bytes_every_time():
    x, context = normal(SEVERAL.size), Context(SEVERAL)
    assert Uniform(bits=3).encode(x, context) == Uniform(bits=3).encode(x.copy(), context)


# Configuration.


def test_configuration_round_trip():
    codec = Uniform(5, "max", Votes())
    assert from_config(to_config(codec), {"uniform": Uniform, "votes": Votes}) == codec


@pytest.mark.parametrize(
    ("field", "value"),
    [*[("bits", b) for b in (0, 17, 2.0, True, "2")], ("step", "min"), ("step", None), ("labels", Float32())],
)
def test_fields_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"uniform.{field}"):
        Uniform(**{field: value})


# Odd inputs and hostile payloads.

ODD = {
    "zeros": np.zeros(9),
    "constant": np.full(9, -0.37),
    "one entry": np.array([2.5]),
    "tiny": np.full(9, 1e-45),
    "tiny and two": np.array([1e-45, 3e-45, -1e-45]),
    "largest": np.full(9, LARGEST),
    "largest and least": np.array([LARGEST, 1e-45, -LARGEST, 0]),
    "wide": np.logspace(-38, 38, 50),
    "cauchy": 1e30 * np.random.default_rng(0).standard_cauchy(300),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("codec", [Uniform(), Uniform(1), Uniform(8, "max"), Uniform(16)])
def test_odd_inputs(name, codec):
    x = ODD[name].astype(np.float32)
    _, back = there_and_back(codec, x)
    assert float(np.abs(back).max()) <= float(np.abs(x).max()) * (1 + 1e-6) + 1e-40
    if name == "zeros":
        assert not back.any()
    if np.unique(x).size == 1 and codec.step == "mse":
        assert back == pytest.approx(x, rel=1e-6, abs=1e-40)


@pytest.mark.parametrize("layout", [Layout.of({}), Layout.of({"a": (0,), "b": (2, 0)}), SEVERAL, Layout.of({"a": ()})])
def test_odd_layouts(layout):
    there_and_back(Uniform(), normal(layout.size), Context(layout))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite(bad):
    with pytest.raises(ConfigError, match="finite"):
        Uniform().encode(np.array([1, bad, 2], np.float32), single(3))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40), st.integers(1, 16))
@settings(max_examples=100, deadline=None)
def test_any_finite_numbers(values, bits):
    there_and_back(Uniform(bits=bits), np.array(values, np.float32))


def refused_or_right(payload, context):
    try:
        back = Uniform(bits=3).decode(payload, context)
    except DecodeError:
        return False
    assert back.shape == (context.layout.size,)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    return True


def test_hostile_payloads():
    context, draw = Context(SEVERAL), np.random.default_rng(0)
    payload = Uniform(bits=3).encode(normal(SEVERAL.size), context)
    assert not any(refused_or_right(payload[:cut], context) for cut in range(len(payload)))
    assert not refused_or_right(payload + b"\0", context)
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        refused_or_right(bytes(flipped), context)
    for _ in range(300):
        refused_or_right(draw.bytes(int(draw.integers(0, 60))), context)


@pytest.mark.parametrize("half", [np.nan, np.inf, -1.0])
def test_bad_steps_are_refused(half):
    payload = Uniform().encode(normal(9), single(9))
    with pytest.raises(DecodeError, match="uniform: a scale is negative, NaN or infinite"):
        Uniform().decode(np.float32(half).tobytes() + payload[4:], single(9))


def test_labels_beyond_the_levels_are_refused():
    payload = np.float32(1).tobytes() + Votes().encode(np.array([0, 4], np.uint32), single(2))
    with pytest.raises(DecodeError, match="4 is above 3"):
        Uniform(bits=2).decode(payload, single(2))
    assert Uniform(bits=3).decode(payload, single(2)).tolist() == [-7, 1]


def test_a_huge_step_stays_finite():
    payload = np.float32(LARGEST).tobytes() + Votes().encode(np.array([0, 3], np.uint32), single(2))
    assert Uniform(bits=2).decode(payload, single(2)).tolist() == [-LARGEST, LARGEST]
