"""Entries of a vector: what `decode` gives, added to a sum bit for bit as an array would be."""

import numpy as np
import pytest

from thinwire.codecs import M22, STC, ByRole, Context, Float16, Float32, Pooled, TopK, parts
from thinwire.codecs.entries import Entries, add, add_signs, dense, magnitudes, read, values
from thinwire.codecs.named import FedZip
from thinwire.layout import Layout

LAYOUT = Layout.of({"a": (30, 40), "b": (40,), "empty": (0,), "c": (20, 20), "d": (7,)})
SPARSE = [
    TopK(0.05),
    TopK(0.01, "global"),
    STC(keep=0.02),
    FedZip(keep=0.05),
    M22(keep=0.05, bits=1),
    FedZip(roles=False),
]
DENSE = [Float32(), Float16(), Pooled(), ByRole(), FedZip(variant="faithful")]


def vector(seed=0):
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


@pytest.mark.parametrize("codec", SPARSE, ids=repr)
@pytest.mark.parametrize("shared", [None, vector(1)], ids=["alone", "shared"])
def test_entries_are_what_is_decoded(codec, shared):
    context = Context(LAYOUT, shared)
    payload = codec.encode(vector(), context)
    found = read(codec, payload, context)
    assert isinstance(found, Entries)
    assert found.places.dtype == np.int64
    assert len(np.unique(found.places)) == len(found.places) == len(values(found)) < LAYOUT.size / 2
    assert dense(found).tobytes() == codec.decode(payload, context).tobytes()
    assert sum(part.bytes for part in parts(codec, payload, context) if part.leaf) == len(payload)


@pytest.mark.parametrize("codec", DENSE, ids=repr)
def test_a_codec_without_entries_gives_its_array(codec):
    payload = codec.encode(vector(), Context(LAYOUT))
    found = read(codec, payload, Context(LAYOUT))
    assert isinstance(found, np.ndarray)
    assert values(found) is dense(found) is found
    assert found.tobytes() == codec.decode(payload, Context(LAYOUT)).tobytes()


@pytest.mark.parametrize("codec", [*SPARSE, *DENSE], ids=repr)
def test_adding_is_what_numpy_does_with_an_array(codec):
    """Weights that make products inexact: one rounding of the product, one of the sum, no fused multiply-add."""
    plain, total = np.zeros(LAYOUT.size), np.zeros(LAYOUT.size)
    for number, weight in enumerate((3, 7_777_777_777_777_773, 1 / 3, 600)):
        payload = codec.encode(vector(number), Context(LAYOUT))
        plain += np.multiply(codec.decode(payload, Context(LAYOUT)), weight, dtype=np.float64)
        add(total, read(codec, payload, Context(LAYOUT)), weight)
    assert total.tobytes() == plain.tobytes()


@pytest.mark.parametrize("codec", [*SPARSE, *DENSE], ids=repr)
def test_signs_and_magnitudes_are_those_of_the_array(codec):
    votes = np.zeros(LAYOUT.size)
    for number in range(3):
        payload = codec.encode(vector(number), Context(LAYOUT))
        x, found = codec.decode(payload, Context(LAYOUT)), read(codec, payload, Context(LAYOUT))
        before = votes.copy()
        add_signs(votes, found)
        assert np.array_equal(votes - before, np.sign(x))
        wanted = [np.abs(x[entry.slice]).sum(dtype=np.float64) for entry in LAYOUT]
        np.testing.assert_allclose(magnitudes(found, LAYOUT), wanted, rtol=1e-12)


def test_an_array_of_another_size_is_refused():
    for act in (lambda x: add(np.zeros(4), x, 1), lambda x: add_signs(np.zeros(4), x)):
        with pytest.raises(ValueError, match=r"shape \(3,\) cannot be added to one of \(4,\)"):
            act(np.ones(3, np.float32))


def test_masks_are_added_as_numbers():
    mask = (vector() > 0).astype(np.uint8)
    total = np.ones(LAYOUT.size)
    add(total, mask, 5)
    np.testing.assert_array_equal(total, 1 + 5.0 * mask)


def test_an_array_of_another_size_is_not_added():
    with pytest.raises(ValueError, match=r"shape \(3,\) cannot be added to one of \(4,\)"):
        add(np.zeros(4), np.ones(3, np.float32), 1)


def test_a_negative_zero_changes_nothing():
    total = np.zeros(4)
    add(total, Entries(4, np.array([1, 2]), np.array([-0.0, 2.0], np.float32)), 3)
    add(total, np.array([-0.0, 0, 0, 1], np.float32), 3)
    assert total.tobytes() == np.array([0.0, 0, 6, 3]).tobytes()


def test_a_million_parameters_at_a_thousandth_take_no_array_of_their_size():
    """What Python allocates while 20 updates are added is measured, not computed."""
    import tracemalloc

    n = 1_000_000
    draw, total = np.random.default_rng(0), np.zeros(n)
    changes = [
        Entries(n, draw.choice(n, n // 1000, replace=False), draw.normal(size=n // 1000).astype(np.float32))
        for _ in range(20)
    ]
    add(total, changes[0], 1)
    whole = draw.normal(size=n).astype(np.float32)
    add(total, whole, 1)
    tracemalloc.start()
    try:
        for change in changes:
            add(total, change, 10)
        add(total, whole, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000
