"""`mask` against the conditional entropy, and its choice of classes."""

import numpy as np
import pytest

from thinwire.codecs import Context, Mask, varint
from thinwire.codecs.mask import _table_bits
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout


def single(n):
    return Layout.of({"a": (n,)})


def conditional_entropy_bits(mask, key):
    bits = 0.0
    for value in np.unique(key):
        p = mask[key == value].mean()
        bits -= (key == value).sum() * sum(q * np.log2(q) for q in (p, 1 - p) if q > 0)
    return bits


@pytest.mark.parametrize("total", [1, 2, 5, 10, 30, 60])
@pytest.mark.parametrize("spread", [0.3, 2.0, 8.0])
def test_size_is_the_entropy_given_the_counts(total, spread):
    draw = np.random.default_rng(total)
    theta = 1 / (1 + np.exp(-spread * draw.standard_normal(200_000)))
    counts = draw.binomial(total, theta).astype(np.uint32)
    mask = (draw.random(theta.size) < theta).astype(np.uint8)
    context = Context(single(mask.size), counts)
    payload = Mask().encode(mask, context)
    assert len(payload) <= conditional_entropy_bits(mask, counts) / 8 * 1.005 + 200
    assert np.array_equal(Mask().decode(payload, context), mask)


def test_without_counts_every_tensor_has_its_own_density():
    draw = np.random.default_rng(0)
    layout = Layout.of({"a": (300, 300), "b": (300,), "c": (300, 100)})
    tensor = np.repeat([0, 1, 2], layout.sizes)
    mask = (draw.random(layout.size) < np.array([0.02, 0.5, 0.9])[tensor]).astype(np.uint8)
    payload = Mask().encode(mask, Context(layout))
    assert len(payload) <= conditional_entropy_bits(mask, tensor) / 8 * 1.005 + 32


def test_fewer_classes_where_the_shorter_table_pays():
    draw = np.random.default_rng(1)
    counts = draw.integers(0, 2000, 3000).astype(np.uint32)
    blind, sharp = draw.integers(0, 2, 3000).astype(np.uint8), (counts >= 1000).astype(np.uint8)
    context = Context(single(3000), counts)
    assert varint.Reader(Mask().encode(blind, context)).next() == 1
    assert varint.Reader(Mask().encode(sharp, context)).next() == 2
    assert len(Mask().encode(sharp, context)) < 8
    assert len(Mask().encode(blind, context)) < 3000 / 8 + 16


def test_constant_masks_cost_the_table_alone():
    assert Mask().encode(np.zeros(10**6, np.uint8), Context(single(10**6))) == b"\1\0"
    assert Mask().encode(np.ones(100, np.uint8), Context(single(100))) == b"\1\x64"


def test_one_entry_in_a_great_many():
    mask = np.zeros(4_000_000, np.uint8)
    mask[3_999_999] = 1
    payload = Mask().encode(mask, Context(single(mask.size)))
    assert len(payload) < 24
    assert np.array_equal(Mask().decode(payload, Context(single(mask.size))), mask)


@pytest.mark.parametrize("wrong", [2, 3, 255])
def test_anything_but_zeros_and_ones_is_refused(wrong):
    mask = np.array([0, 1, wrong, 1], np.uint8)
    with pytest.raises(ConfigError, match="zeros and ones"):
        Mask().encode(mask, Context(single(4)))


def test_number_of_ones_must_be_as_sent():
    draw = np.random.default_rng(2)
    mask = (draw.random(500) < 0.3).astype(np.uint8)
    payload = Mask().encode(mask, Context(single(500)))
    forged = varint.write([1, int(mask.sum()) + 1]) + payload[3:]
    with pytest.raises(DecodeError, match="number of ones"):
        Mask().decode(forged, Context(single(500)))


def test_more_ones_than_entries_are_refused():
    with pytest.raises(DecodeError, match="above 4"):
        Mask().decode(b"\1\5", Context(single(4)))


def test_a_number_of_classes_that_cannot_be_is_refused():
    with pytest.raises(DecodeError, match="2 classes of 1 keys"):
        Mask().decode(b"\2\0\0", Context(single(4)))


@pytest.mark.parametrize("shared", [False, True])
def test_every_truncation_of_the_table_is_refused(shared):
    draw = np.random.default_rng(3)
    counts = draw.integers(0, 20, 40_000).astype(np.uint32)
    mask = (draw.random(counts.size) < counts / 20).astype(np.uint8)
    layout = Layout.of({str(i): (1000,) for i in range(40)})
    context = Context(layout, counts if shared else None)
    payload = Mask().encode(mask, context)
    reader = varint.Reader(payload)
    for _ in range(1 + (20 if shared else 1)):
        reader.next()
    for length in range(reader.position):
        with pytest.raises(DecodeError, match="ends inside a number"):
            Mask().decode(payload[:length], context)


def test_the_search_for_classes_weighs_the_table_by_its_bytes():
    counts = np.array([[5, 0], [0, 0], [0, 127], [1, 128], [9, 2**14 - 1], [0, 2**14], [3, 2**21]])
    assert _table_bits(counts) == 8 * len(varint.write([0, 127, 128, 2**14 - 1, 2**14, 2**21]))
