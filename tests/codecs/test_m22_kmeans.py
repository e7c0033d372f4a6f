"""`kmeans` against scikit-learn's and a plain Lloyd iteration; its payload, odd inputs, hostile payloads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as Reference

from thinwire.codecs import Context, Float32, Votes, to_config, varint
from thinwire.codecs.config import from_config
from thinwire.codecs.kmeans import KMeans, lloyd
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

SEVERAL = Layout.of({"a": (40, 5), "none": (0, 3), "scalar": (), "b": (7,)})
LARGEST = float(np.finfo(np.float32).max)
DRAW = np.random.default_rng(7)
LAWS = {
    "normal": DRAW.standard_normal(3000),
    "laplace": DRAW.laplace(size=3000),
    "lumps": np.concatenate([DRAW.normal(m, 1, 500) for m in (-4, 0, 0.5, 7)]),
    "ties": DRAW.integers(-9, 10, 3000) / 4,
}


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


def inertia(x, back):
    return float(((x.astype(np.float64) - back) ** 2).sum())


def starting(x, k, start):
    x = np.sort(x.astype(np.float64))
    return x[(2 * np.arange(k) + 1) * x.size // (2 * k)] if start == "quantile" else np.linspace(x[0], x[-1], k)


@pytest.mark.parametrize("law", ["normal", "laplace", "lumps"])
@pytest.mark.parametrize("clusters", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("start", ["quantile", "linspace"])
def test_inertia_is_that_of_scikit_learn(law, clusters, start):
    x = LAWS[law].astype(np.float32)
    first = starting(x, clusters, start)
    reference = Reference(clusters, init=first[:, None], n_init=1, max_iter=400, tol=0, algorithm="lloyd")
    reference.fit(x.astype(np.float64)[:, None])
    _, back = there_and_back(KMeans(clusters, 400, start), x)
    assert inertia(x, back) == pytest.approx(reference.inertia_, rel=1e-6)


@pytest.mark.parametrize("iterations", [0, 1, 2, 4])
@pytest.mark.parametrize("start", ["quantile", "linspace"])
def test_iterations_are_lloyds(iterations, start):
    """Against the plain double loop; on a tie of distances the lower centroid."""
    x = LAWS["ties"]
    centroids = starting(x, 4, start)
    for _ in range(iterations):
        nearest = np.abs(x[:, None] - centroids).argmin(axis=1)
        centroids = np.array([x[nearest == j].mean() if (nearest == j).any() else centroids[j] for j in range(4)])
    assert lloyd(np.sort(x), starting(x, 4, start), iterations) == pytest.approx(centroids, rel=1e-12)
    _, back = there_and_back(KMeans(4, iterations, start), x.astype(np.float32))
    assert back == pytest.approx(centroids[np.abs(x[:, None] - centroids).argmin(axis=1)], rel=1e-6)


def test_clusters_without_entries_stay():
    ordered = np.array([0.0, 0.0, 0.0, 10.0])
    assert lloyd(ordered, np.array([0.0, 4.0, 5.0, 10.0]), 20).tolist() == [0, 4, 5, 10]


def test_as_many_clusters_as_values_lose_nothing():
    x = DRAW.choice([-2, 0.5, 3, 7], 200).astype(np.float32)
    x[:4] = [-2, 0.5, 3, 7]
    assert np.array_equal(there_and_back(KMeans(256), x)[1], x)


def test_every_tensor_is_clustered_alone():
    layout = Layout.of({"a": (300,), "b": (300,)})
    parts = [DRAW.choice([1e-6, -1e-6, 0], 300), DRAW.choice([5.0, 6, 7], 300)]
    x = np.concatenate(parts).astype(np.float32)
    assert np.array_equal(there_and_back(KMeans(start="linspace"), x, Context(layout))[1], x)


# Bytes.


def test_payload_byte_by_byte():
    x, layout = np.array([5, -1, 5, 0, 8], np.float32), Layout.of({"a": (4,), "none": (0,), "b": (1,)})
    payload, back = there_and_back(KMeans(clusters=3, start="linspace"), x, Context(layout))
    labels = Votes().encode(np.array([2, 0, 2, 0, 0], np.uint32), Context(layout))
    assert payload == varint.write([len(labels)]) + labels + np.array([-0.5, 5, 8], "<f4").tobytes()
    assert back.tolist() == [5, -0.5, 5, -0.5, 8]


def test_same_bytes_every_time():
    x, context = LAWS["normal"][: SEVERAL.size].astype(np.float32), Context(SEVERAL)
    first = KMeans(5).encode(x, context)
    assert KMeans(5).encode(x.copy(), context) == first


# Configuration.


def test_configuration_round_trip():
    codec = KMeans(5, 9, "linspace", Votes())
    assert from_config(to_config(codec), {"kmeans": KMeans, "votes": Votes}) == codec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("clusters", value) for value in (0, 257, 3.0, True, None)],
        *[("iterations", value) for value in (-1, 2.0, False)],
        *[("start", value) for value in ("random", None)],
        ("labels", Float32()),
    ],
)
def test_fields_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"kmeans.{field}"):
        KMeans(**{field: value})


# Odd inputs and hostile payloads.

ODD = {
    "zeros": np.zeros(9),
    "constant": np.full(9, -0.37),
    "one entry": np.array([2.5]),
    "two entries": np.array([2.5, -1]),
    "tiny": np.full(9, 1e-45),
    "largest": np.full(9, LARGEST),
    "largest and least": np.array([LARGEST, 1e-45, -LARGEST, 0]),
    "wide": np.logspace(-38, 38, 50),
    "cauchy": 1e30 * np.random.default_rng(0).standard_cauchy(300),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("codec", [KMeans(), KMeans(1), KMeans(256), KMeans(start="linspace"), KMeans(iterations=0)])
def test_odd_inputs(name, codec):
    x = ODD[name].astype(np.float32)
    _, back = there_and_back(codec, x)
    assert back.min() >= x.min()
    assert back.max() <= x.max()
    if np.unique(x).size == 1:
        assert np.array_equal(back, x)


@pytest.mark.parametrize("layout", [Layout.of({}), Layout.of({"a": (0,), "b": (2, 0)}), SEVERAL, Layout.of({"a": ()})])
def test_odd_layouts(layout):
    there_and_back(KMeans(), LAWS["normal"][: layout.size].astype(np.float32), Context(layout))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite(bad):
    with pytest.raises(ConfigError, match="finite"):
        KMeans().encode(np.array([1, bad, 2], np.float32), single(3))


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from(["quantile", "linspace"]),
)
@settings(max_examples=150, deadline=None)
def test_any_finite_numbers(values, clusters, start):
    x = np.array(values, np.float32)
    _, back = there_and_back(KMeans(clusters, start=start), x)
    assert np.unique(back).size <= clusters


def refused_or_right(payload, context):
    try:
        back = KMeans(4).decode(payload, context)
    except DecodeError:
        return False
    assert back.shape == (context.layout.size,)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    return True


def test_hostile_payloads():
    context, draw = Context(SEVERAL), np.random.default_rng(0)
    payload = KMeans(4).encode(LAWS["normal"][: SEVERAL.size].astype(np.float32), context)
    assert not any(refused_or_right(payload[:cut], context) for cut in range(len(payload)))
    assert not refused_or_right(payload + b"\0", context)
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        refused_or_right(bytes(flipped), context)
    for _ in range(300):
        refused_or_right(draw.bytes(int(draw.integers(0, 60))), context)


@pytest.mark.parametrize(
    ("labels", "centroids", "reason"),
    [
        ([0, 3], [1, 2], "3 is above 2"),
        ([0, 2], [1], "bytes left"),
        ([0, 2], [1, 2, 3], "left over"),
        ([0, 2], [1, np.nan], "NaN or infinite"),
        ([0, 2], [-np.inf, 1], "NaN or infinite"),
    ],
)
def test_forged_payloads_say_why(labels, centroids, reason):
    coded = Votes().encode(np.array(labels, np.uint32), single(2))
    payload = varint.write([len(coded)]) + coded + np.array(centroids, "<f4").tobytes()
    with pytest.raises(DecodeError, match=reason):
        KMeans(3).decode(payload, single(2))
