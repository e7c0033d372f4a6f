"""`bitmap`, `fixed`, `gaps`: exact sizes, bits against entropy, one mask one payload, hostile counts."""

import tracemalloc
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import Bitmap, Context, Fixed, Gaps, Mask, bits, varint
from thinwire.codecs.positions import places
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

ALL = (Bitmap(), Fixed(), Gaps())
every = pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.id)


def single(n):
    return Context(Layout.of({"a": (n,)}))


def scattered(n, density, seed=0):
    return (np.random.default_rng(seed).random(n) < density).astype(np.uint8)


def h2(p):
    return -p * log2(p) - (1 - p) * log2(1 - p) if 0 < p < 1 else 0.0


SIZES = (0, 1, 2, 3, 7, 8, 9, 255, 256, 257, 1000)


@every
@pytest.mark.parametrize("n", SIZES)
def test_round_trip(codec, n):
    masks = [scattered(n, p) for p in (0.0, 0.02, 0.3, 0.9, 1.0)]
    masks += [(np.arange(n) == i).astype(np.uint8) for i in (0, 1, n - 1)]
    for mask in masks:
        assert np.array_equal(codec.decode(codec.encode(mask, single(n)), single(n)), mask)


@pytest.mark.parametrize("n", SIZES)
def test_sizes_of_bitmap_and_fixed(n):
    width = ceil(log2(n)) if n > 1 else 0
    for density in (0.0, 0.1, 1.0):
        mask = scattered(n, density)
        count = int(mask.sum())
        assert len(Bitmap().encode(mask, single(n))) == (n + 7) // 8
        assert len(Fixed().encode(mask, single(n))) == len(varint.write([count])) + (count * width + 7) // 8


def test_payloads_byte_by_byte():
    mask = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0, 1], np.uint8)
    assert Bitmap().encode(mask, single(10)) == bytes([0b00110010, 0b10])
    assert Fixed().encode(mask, single(10)) == bytes([4]) + bits.pack(np.array([1, 4, 5, 9]), 4)
    assert Gaps().encode(mask, single(10)) == bytes([4, 0, 0b11001101, 0b01])  # gaps 1 2 0 3: 10 110 0 1110
    assert Gaps().encode(np.zeros(10, np.uint8), single(10)) == b"\0"


@pytest.mark.parametrize("density", [0.001, 0.0025, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_gaps_come_close_to_entropy(density):
    n = 400_000
    mask = scattered(n, density)
    bound = n * h2(mask.mean()) / 8
    assert bound - 4 <= len(Gaps().encode(mask, single(n))) <= 1.05 * bound + 5


def test_gaps_of_a_run_of_ones():
    assert len(Gaps().encode(np.ones(8000, np.uint8), single(8000))) == 2 + 1 + 1000


@every
def test_only_masks(codec):
    with pytest.raises(ConfigError, match="zeros and ones"):
        codec.encode(np.array([0, 1, 2], np.uint8), single(3))
    with pytest.raises(ConfigError, match="uint8 array"):
        codec.encode(np.array([False, True]), single(2))


# Hostile payloads.


@every
@pytest.mark.parametrize("count", [2**20, 2**31, 2**56 - 1])
def test_counts_from_outside_allocate_nothing(codec, count):
    tracemalloc.start()
    try:
        for tail in (b"", b"\0", b"\0" * 100, b"\xff" * 100):
            with pytest.raises(DecodeError):
                codec.decode(varint.write([count]) + tail, single(1000))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@every
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_one_mask_one_payload(codec, data):
    """Whatever is read, written again, is the same bytes."""
    n = data.draw(st.sampled_from([0, 1, 2, 5, 8, 12, 40]))
    start = data.draw(st.lists(st.integers(0, 20), max_size=2).map(bytes))
    payload = start + data.draw(st.binary(max_size=6))
    try:
        mask = codec.decode(payload, single(n))
    except DecodeError:
        return
    assert mask.shape == (n,)
    assert codec.encode(mask, single(n)) == payload


@pytest.mark.parametrize(
    ("places", "reason"), [([3, 3], "must ascend"), ([5, 2], "must ascend"), ([2, 12], "inside"), ([15, 15], "ascend")]
)
def test_forged_addresses(places, reason):
    with pytest.raises(DecodeError, match=reason):
        Fixed().decode(varint.write([2]) + bits.pack(np.array(places), 4), single(10))


def test_a_parameter_that_is_not_the_best():
    mask = np.array([1, 0, 0, 0, 0], np.uint8)
    assert Gaps().encode(mask, single(5)) == b"\1\0\0"
    for b in (1, 2, 3, 7):  # the same mask, and in one byte too
        with pytest.raises(DecodeError, match=f"{b} low bits, 0 are the best"):
            Gaps().decode(bytes([1, b, 0]), single(5))
    with pytest.raises(DecodeError, match="above 24"):
        Gaps().decode(bytes([1, 25, 0, 0, 0, 0]), single(5))


@every
def test_an_empty_layout(codec):
    for payload in (b"\0\0", b"\1", b"\1\0", b"\xff"):
        with pytest.raises(DecodeError):
            codec.decode(payload, single(0))


@pytest.mark.parametrize("codec", [*ALL, Mask()], ids=repr)
@pytest.mark.parametrize("density", [0, 0.01, 0.5, 1])
def test_places_are_where_the_ones_are(codec, density):
    context = Context(Layout.of({"x": (3000,)}))
    mask = (np.random.default_rng(0).random(3000) < density).astype(np.uint8)
    payload = codec.encode(mask, context)
    assert np.array_equal(places(codec, payload, context), np.flatnonzero(mask))


@pytest.mark.parametrize("codec", [Fixed(), Gaps()], ids=repr)
def test_few_places_of_many_need_no_array_of_all(codec):
    context = Context(Layout.of({"x": (2_000_000,)}))
    mask = np.zeros(2_000_000, np.uint8)
    mask[[7, 1_999_999]] = 1
    payload = codec.encode(mask, context)
    places(codec, payload, context)
    tracemalloc.start()
    places(codec, payload, context)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000
