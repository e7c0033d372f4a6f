"""Varints: bytes, order, shortest form, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.codecs.varint import Reader, length, write
from thinwire.errors import DecodeError


@pytest.mark.parametrize(
    ("number", "payload"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16383, "ff7f"), (2**56 - 1, "ff" * 7 + "7f")],
)
def test_bytes_are_these(number, payload):
    assert write([number]).hex() == payload
    assert Reader(bytes.fromhex(payload)).next() == number


@given(st.lists(st.integers(0, 2**56 - 1)), st.binary(max_size=5))
def test_round_trip(numbers, tail):
    reader = Reader(write(numbers) + tail)
    assert [reader.next() for _ in numbers] == numbers
    assert reader.rest() == tail


@pytest.mark.parametrize("payload", ["", "80", "ff", "ffff"])
def test_payload_ends_inside_a_number(payload):
    with pytest.raises(DecodeError, match="ends inside a number"):
        Reader(bytes.fromhex(payload)).next()


@pytest.mark.parametrize("payload", ["8000", "8100", "ff8000"])
def test_longer_than_shortest_form(payload):
    with pytest.raises(DecodeError, match="not in its shortest form"):
        Reader(bytes.fromhex(payload)).next()


def test_above_the_bound():
    assert Reader(write([9])).next(most=9) == 9
    with pytest.raises(DecodeError, match="10 is above 9"):
        Reader(write([10])).next(most=9)


@pytest.mark.parametrize("payload", ["80" * 8 + "01", "ff" * 1000])
def test_longer_than_56_bits(payload):
    with pytest.raises(DecodeError, match="longer than 56 bits"):
        Reader(bytes.fromhex(payload)).next()


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21, 2**56 - 1])
def test_the_length_of_a_number_is_that_of_its_bytes(number):
    assert length(number) == len(write([number]))
