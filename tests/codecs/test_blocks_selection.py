"""Which entries are largest, against a stable sort; classes of magnitudes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs.selection import groups, how_many, largest, magnitude_classes
from thinwire.layout import Layout

LARGEST = float(np.finfo(np.float32).max)
DRAW = np.random.default_rng(3)
INPUTS = {
    "normal": DRAW.standard_normal(1000),
    "wide": np.concatenate([np.logspace(-45, 38, 300), -np.logspace(-45, 38, 300)]),
    "ties": DRAW.integers(-4, 5, 1000) / 4,
    "all equal": np.full(77, -0.37),
    "zeros": np.zeros(50),
    "both zeros": np.where(np.arange(60) % 2, 0.0, -0.0),
    "denormals": DRAW.integers(-5, 6, 200) * 1e-45,
    "neighbours": np.float32(1) + np.arange(40, dtype=np.float32) * np.float32(2**-23),
    "largest": np.array([LARGEST, -LARGEST, 1, 1e-45, 0]),
    "one": np.array([-2.0]),
}


def by_sorting(x, k):
    """The k first of a stable sort by falling magnitude."""
    mask = np.zeros(x.size, np.uint8)
    mask[np.argsort(-np.abs(x.astype(np.float64)), kind="stable")[:k]] = 1
    return mask


def one(n):
    return Layout.of({"a": (n,)})


@pytest.mark.parametrize("keep", [1e-9, 0.01, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("name", INPUTS)
def test_exactly_the_largest(name, keep):
    x = INPUTS[name].astype(np.float32)
    mask = largest(x, keep, "tensor", one(x.size))
    assert mask.dtype == np.uint8
    assert mask.sum() == how_many(keep, x.size)
    assert np.array_equal(mask, by_sorting(x, how_many(keep, x.size)))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_any_numbers(values, keep):
    x = np.array(values, np.float32)
    assert np.array_equal(largest(x, keep, "global", one(x.size)), by_sorting(x, how_many(keep, x.size)))


def test_on_views():
    x = np.repeat(INPUTS["normal"].astype(np.float32), 3)
    assert np.array_equal(largest(x[::3], 0.1, "tensor", one(1000)), largest(x[::3].copy(), 0.1, "tensor", one(1000)))
    assert np.array_equal(largest(x[:500], 0.1, "tensor", one(500)), by_sorting(x[:500], 50))


def test_the_input_is_left_alone_and_may_be_read_only():
    x = INPUTS["normal"].astype(np.float32)
    before = x.copy()
    x.flags.writeable = False
    largest(x, 0.3, "global", one(x.size))
    assert np.array_equal(x, before)


def test_scopes():
    layout = Layout.of({"a": (100,), "none": (0, 4), "scalar": (), "b": (10, 20)})
    x = np.concatenate([100 * DRAW.standard_normal(100), [1e-9], DRAW.standard_normal(200)]).astype(np.float32)
    mask = largest(x, 0.1, "tensor", layout)
    assert [int(mask[entry.slice].sum()) for entry in layout] == [10, 0, 1, 20]
    for entry in layout:
        assert np.array_equal(mask[entry.slice], by_sorting(x[entry.slice], how_many(0.1, entry.size)))
    assert np.array_equal(largest(x, 0.1, "global", layout), by_sorting(x, 30))
    assert groups(layout, "global") == [(slice(0, 301), 301)]
    assert [size for _, size in groups(layout, "tensor")] == [100, 0, 1, 200]


@pytest.mark.parametrize(
    ("keep", "size", "count"),
    [
        *[(0.1, 0, 0), (1.0, 0, 0), (0.1, 1, 1), (1e-9, 10**6, 1), (0.01, 150, 2), (0.01, 149, 1), (0.25, 10, 3)],
        *[(1.0, 7, 7), (0.9999, 3, 3), (0.0025, 10**6, 2500), (1 / 3, 9, 3)],
    ],
)
def test_how_many(keep, size, count):
    assert how_many(keep, size) == count


# Classes.


def test_no_shared_array_no_classes():
    assert magnitude_classes(None) is None


def test_four_classes_an_octave():
    quarters = np.array([1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4], np.float32)
    assert magnitude_classes(quarters).tolist() == list(range(1, 10))
    below = np.nextafter(quarters[1:], np.float32(0))
    assert magnitude_classes(np.append(below, np.float32(1))).tolist() == [*range(1, 9), 1]


def test_zero_is_class_zero():
    assert magnitude_classes(np.array([0.0, -0.0, 1e-45, 3e-39, 7.0, -7.0], np.float32)).tolist()[:2] == [0, 0]
    assert magnitude_classes(np.zeros(5, np.float32)).tolist() == [0] * 5
    assert magnitude_classes(np.full(5, -3e20, np.float32)).tolist() == [1] * 5
    assert magnitude_classes(np.array([], np.float32)).tolist() == []


@pytest.mark.parametrize("name", INPUTS)
def test_classes_are_integers_that_follow_the_magnitude(name):
    x = INPUTS[name].astype(np.float32)
    classes = magnitude_classes(x)
    assert classes.dtype == np.uint32
    assert np.array_equal(classes, magnitude_classes(-x))
    assert (np.diff(classes[np.argsort(np.abs(x))].astype(np.int64)) >= 0).all()
    assert classes.max() < 1024
    assert (classes[x == 0] == 0).all()
    magnitudes = np.abs(x.astype(np.float64))
    for number in np.unique(classes[magnitudes >= 2.0**-126]):
        inside = magnitudes[(classes == number) & (magnitudes >= 2.0**-126)]
        assert inside.max() < 1.25 * inside.min()


def test_classes_of_views():
    x = INPUTS["normal"].astype(np.float32)
    for view in (np.repeat(x, 2)[::2], x[::-1][::-1], np.stack([x, x], axis=1)[:, 1]):
        assert np.array_equal(magnitude_classes(view), magnitude_classes(x))


def test_classes_of_odd_numbers_are_small():
    odd = np.array([np.nan, np.inf, -np.inf, LARGEST, 1e-45], np.float32)
    assert magnitude_classes(odd).max() < 1024
