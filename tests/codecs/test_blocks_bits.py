"""Bit strings: fixed widths and Golomb–Rice codes, against strings of '0' and '1'."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import bits
from thinwire.errors import DecodeError


def as_text(payload):
    """Bits in the order they are written, lowest of each byte first."""
    return "".join(f"{byte:08b}"[::-1] for byte in payload)


def low_first(number, width):
    return f"{number:0{width}b}"[::-1] if width else ""


def filled(text):
    return text + "0" * (-len(text) % 8)


@pytest.mark.parametrize("width", range(33))
def test_pack_and_unpack_every_width(width):
    draw = np.random.default_rng(width)
    for count in (0, 1, 2, 7, 8, 9, 100):
        numbers = draw.integers(0, 2**width, count, dtype=np.uint64)
        numbers[: count // 3] = 2**width - 1
        payload = bits.pack(numbers, width)
        assert as_text(payload) == filled("".join(low_first(int(n), width) for n in numbers))
        back = bits.unpack(payload, width, count)
        assert back.dtype == np.uint32
        assert np.array_equal(back, numbers)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64])
def test_any_whole_dtype_is_packed_alike(dtype):
    numbers = np.array([1, 0, 5, 7, 2], dtype)
    assert bits.pack(numbers, 3) == bits.pack(numbers.astype(np.uint64), 3)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (3, 5), (5, 3), (7, 1), (31, 1), (32, 0), (0, 9)])
def test_spare_bits_and_other_lengths_are_refused(width, count):
    payload = bits.pack(np.zeros(count, np.uint32), width)
    for other in (payload + b"\0", payload[:-1]) if payload else (b"\0",):
        with pytest.raises(DecodeError, match=f"{count} numbers of {width} bits"):
            bits.unpack(other, width, count)
    for bit in range(count * width, 8 * len(payload)):
        dirty = bytearray(payload)
        dirty[bit // 8] |= 1 << bit % 8
        with pytest.raises(DecodeError, match="spare bit"):
            bits.unpack(bytes(dirty), width, count)


# Golomb–Rice.


def rice_text(gaps, b):
    return "".join("1" * (gap >> b) + "0" + low_first(gap & (2**b - 1), b) for gap in gaps)


GAPS = {
    "zeros": np.zeros(20),
    "one": np.array([5]),
    "geometric": np.random.default_rng(0).geometric(0.01, 500) - 1,
    "dense": np.random.default_rng(1).geometric(0.4, 500) - 1,
    "one far": np.array([0, 0, 0, 40_000]),
    "equal": np.full(30, 127),
    "a power of two": np.full(30, 128),
}


@pytest.mark.parametrize("name", GAPS)
def test_the_parameter_is_the_best_and_the_least_of_these(name):
    gaps = GAPS[name].astype(np.uint32)
    lengths = [int((gaps >> b).sum()) + gaps.size * (1 + b) for b in range(25)]
    assert bits.rice_parameter(gaps) == lengths.index(min(lengths))


@given(st.lists(st.integers(0, 2**28), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_the_parameter_of_any_gaps(values):
    gaps = np.array(values, np.uint32)
    lengths = [sum(g >> b for g in values) + len(values) * (1 + b) for b in range(25)]
    assert bits.rice_parameter(gaps) == lengths.index(min(lengths))


def test_the_parameter_without_gaps_and_at_its_limits():
    assert bits.rice_parameter(np.empty(0, np.uint32)) == 0
    assert bits.rice_parameter(np.array([2**32 - 1], np.uint32)) == 24


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("b", [0, 1, 2, 5, 9, 24])
def test_rice_codes_bit_by_bit(name, b):
    gaps = GAPS[name].astype(np.uint32)
    payload = bits.rice_encode(gaps, b)
    assert as_text(payload) == filled(rice_text(gaps.tolist(), b))
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    for size in (int(places[-1]) + 1, int(places[-1]) + 50):
        found = bits.rice_places(payload, b, gaps.size, size)
        assert found.dtype == np.int64
        assert np.array_equal(found, places)
    with pytest.raises(DecodeError, match="gaps"):
        bits.rice_places(payload, b, gaps.size, int(places[-1]))


def test_rice_codes_that_are_refused():
    gaps = np.array([3, 0, 9, 1], np.uint32)
    payload, size = bits.rice_encode(gaps, 1), 30
    wrong = [(payload[:-1], 4), (payload + b"\0", 4), (b"", 1), (b"\xff" * 50, 1), (b"\xff", 8), (b"\0", 0)]
    wrong += [(payload, count) for count in (3, 29)]
    for data, count in wrong:
        with pytest.raises(DecodeError, match="do not give the number of positions"):
            bits.rice_places(data, 1, count, size)
    used = len(rice_text(gaps.tolist(), 1))
    for bit in range(used, 8 * len(payload)):
        dirty = bytearray(payload)
        dirty[bit // 8] |= 1 << bit % 8
        with pytest.raises(DecodeError):
            bits.rice_places(bytes(dirty), 1, 4, size)


@given(payload=st.binary(max_size=40), b=st.integers(0, 24), count=st.integers(0, 60), size=st.integers(60, 200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_rice_codes(payload, b, count, size):
    try:
        places = bits.rice_places(payload, b, count, size)
    except DecodeError:
        return
    assert places.size == count
    gaps = np.diff(places, prepend=-1) - 1
    assert (gaps >= 0).all()
    assert bits.rice_encode(gaps.astype(np.uint32), b) == payload
