"""`huffman`, `raw`, `members`: sizes against an optimal code and entropy, canonical words, deep codes, forgeries."""

import fedzip_reference as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import Bitmap, Context, Fixed, Float32, Gaps, Huffman, KMeans, Mask, Members, Raw, varint
from thinwire.codecs.labels import LONGEST, code_lengths
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

ALL = (Huffman(), Raw(), Members(), Members(Fixed()), Members(Bitmap()), Members(Mask()))
every = pytest.mark.parametrize("codec", ALL, ids=repr)
DRAW = np.random.default_rng(5)
LABELS = {
    "none": np.array([]),
    "one entry": np.array([0]),
    "one entry of 255": np.array([255]),
    "one label": np.full(100, 7),
    "two labels": DRAW.integers(0, 2, 100) * 200,
    "three": DRAW.choice([0, 1, 2], 5000, p=[0.1, 0.8, 0.1]),
    "256 labels": np.concatenate([np.arange(256), DRAW.integers(0, 256, 2000)]),
    "geometric": np.minimum(DRAW.geometric(0.3, 5000) - 1, 255),
    "doubling": np.repeat(np.arange(12), 2 ** np.arange(12)),
    "holes": DRAW.choice([3, 77, 78, 250], 300),
}


def single(n):
    return Context(Layout.of({"a": (n,)}))


def labels_of(name):
    return LABELS[name].astype(np.uint32)


@every
@pytest.mark.parametrize("name", LABELS)
def test_round_trip(codec, name):
    x = labels_of(name)
    back = codec.decode(codec.encode(x, single(x.size)), single(x.size))
    assert back.dtype == np.uint32
    assert np.array_equal(back, x)


@every
@given(values=st.lists(st.integers(0, 255), max_size=60))
@settings(max_examples=25, deadline=None)
def test_any_labels(codec, values):
    x = np.array(values, np.uint32)
    assert np.array_equal(codec.decode(codec.encode(x, single(x.size)), single(x.size)), x)


@every
@pytest.mark.parametrize("largest", [256, 2**24, 2**32 - 1])
def test_labels_beyond_255(codec, largest):
    with pytest.raises(ConfigError, match="labels below 256"):
        codec.encode(np.array([0, largest], np.uint32), single(2))
    assert codec.most == 255


# Huffman.


def kraft(lengths):
    return sum(2.0 ** -int(length) for length in lengths if length)


@pytest.mark.parametrize("name", LABELS)
def test_huffman_is_as_short_as_any_prefix_code(name):
    x = labels_of(name)
    payload, counts = Huffman().encode(x, single(x.size)), np.bincount(x)
    lengths = code_lengths(counts)
    assert np.array_equal(lengths > 0, counts > 0)
    header = len(varint.write([counts.size])) + counts.size
    optimal = reference.huffman_bits(x) if np.count_nonzero(counts) > 1 else 0
    assert len(payload) == header + (optimal + 7) // 8
    if np.count_nonzero(counts) > 1:
        assert kraft(lengths) == 1
        entropy = reference.entropy_bits(x)
        assert entropy - 1e-6 <= optimal < entropy + x.size


def test_words_are_canonical():
    """Lengths 2, 1, 3, 3 give 10, 0, 110, 111, first bit first."""
    x = np.array([1] * 5 + [0] * 3 + [2, 3], np.uint32)
    payload = Huffman().encode(x, single(10))
    assert payload[:5] == bytes([4, 2, 1, 3, 3])
    text = "".join(f"{byte:08b}"[::-1] for byte in payload[5:])
    assert text == ("00000" + "10" * 3 + "110" + "111").ljust(24, "0")


def fibonacci(n):
    counts = [1, 1]
    while len(counts) < n:
        counts.append(counts[-1] + counts[-2])
    return np.array(counts[:n])


@pytest.mark.parametrize("symbols", [2, 10, 31, 32, 33, 40, 60])
def test_deep_codes_are_cut_off(symbols):
    """Fibonacci counts make the deepest tree: one bit more with each label."""
    counts = fibonacci(symbols)
    lengths = code_lengths(counts)
    assert lengths.max() == symbols - 1 if symbols <= LONGEST + 1 else lengths.max() <= LONGEST
    assert kraft(lengths) == 1
    cost = int((lengths * counts).sum())
    optimal = sum(bits * int(counts[s]) for s, bits in reference.huffman_lengths(counts).items())
    assert optimal <= cost <= 1.001 * optimal


def test_a_code_of_31_bits_is_read():
    lengths = [*range(1, LONGEST + 1), LONGEST]
    words = ["1" * (length - 1) + "0" for length in lengths[:-1]] + ["1" * LONGEST]
    x = [0, 31, 30, 5, 31, 1, *[0] * 30]
    text = "".join(words[label] for label in x)
    code = np.packbits([int(bit) for bit in text], bitorder="little").tobytes()
    payload = varint.write([len(lengths)]) + bytes(lengths) + code
    assert Huffman().decode(payload, single(len(x))).tolist() == x
    deeper = [*range(1, LONGEST + 2), LONGEST + 1]
    with pytest.raises(DecodeError, match="no prefix code"):
        Huffman().decode(varint.write([len(deeper)]) + bytes(deeper) + code, single(len(x)))


@pytest.mark.parametrize(
    ("lengths", "code", "size", "reason"),
    [
        ([1], b"\0", 3, "bits follow"),
        ([1], b"", 0, "entries are missing"),
        ([], b"", 3, "entries are missing"),
        ([], b"\0", 0, "bits follow"),
        ([2], b"", 3, "no prefix code"),
        ([0], b"", 0, "does not occur"),
        ([1, 0], b"", 3, "does not occur"),
        ([1, 1, 0], b"\0", 3, "does not occur"),
        ([2, 2], b"\0", 3, "no prefix code"),  # a code that is not full
        ([1, 1, 1], b"\0", 3, "no prefix code"),
        ([1, 2, 3], b"\0", 3, "no prefix code"),
        ([255, 1], b"\0", 3, "no prefix code"),
        ([1, 1], b"", 3, "huffman"),
        ([1, 1], b"\0\0", 3, "more than a fixed width takes for 2 labels"),
        ([1, 2, 2], b"\0\0", 8, "do not hold 8 labels"),
        ([1, 1], b"\x08", 3, "do not hold 3 labels"),  # a spare bit
        ([1, 2, 2], b"\xff", 9, "huffman"),
    ],
)
def test_forged_codes_say_why(lengths, code, size, reason):
    with pytest.raises(DecodeError, match=reason):
        Huffman().decode(varint.write([len(lengths)]) + bytes(lengths) + code, single(size))


# Raw and members.


@pytest.mark.parametrize("name", LABELS)
def test_size_of_raw(name):
    x = labels_of(name)
    largest = int(x.max(initial=0))
    size = len(varint.write([largest])) + (x.size * largest.bit_length() + 7) // 8
    assert len(Raw().encode(x, single(x.size))) == size


def test_raw_names_the_largest_label():
    with pytest.raises(DecodeError, match="the largest label is 4, not 5"):
        Raw().decode(b"\5" + Raw().encode(np.array([4, 0, 1], np.uint32), single(3))[1:], single(3))


def test_members_byte_by_byte():
    x = np.array([2, 2, 0, 2, 2, 0], np.uint32)
    zeros, ones = (Gaps().encode((x == label).astype(np.uint8), single(6)) for label in (0, 1))
    payload = bytes([2, 2, len(zeros)]) + zeros + bytes([len(ones)]) + ones
    assert Members().encode(x, single(6)) == payload


def test_of_the_most_frequent_labels_the_lowest_is_silent():
    assert Members().encode(np.array([3, 1, 3, 1], np.uint32), single(4))[:2] == bytes([3, 1])


def members(largest, silent, *masks):
    coded = [Gaps().encode(np.array(mask, np.uint8), single(4)) for mask in masks]
    return varint.write([largest, silent]) + b"".join(varint.write([len(part)]) + part for part in coded)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (members(2, 0, [1, 0, 0, 0], [1, 0, 0, 0]), "two labels"),
        (members(1, 0, [1, 1, 1, 0]), "silent"),
        (members(1, 1, [1, 1, 0, 0]), "silent"),
        (members(2, 0, [1, 0, 0, 0], [0, 0, 0, 0]), "largest"),
        (members(1, 2), "above 1"),
        (members(1, 0, [0, 1, 0, 0]) + b"\0", "left over"),
        (members(2, 0, [0, 1, 0, 0]), "ends inside"),
    ],
)
def test_forged_members_say_why(payload, reason):
    with pytest.raises(DecodeError, match=reason):
        Members().decode(payload, single(4))


@pytest.mark.parametrize("codec", [Raw(), Members(), Members(Fixed())], ids=repr)
@given(payload=st.binary(max_size=14))
@settings(max_examples=300, deadline=None)
def test_one_array_one_payload(codec, payload):
    for n in (0, 1, 3, 6):
        try:
            x = codec.decode(payload, single(n))
        except DecodeError:
            continue
        assert codec.encode(x, single(n)) == payload


@pytest.mark.parametrize("wrong", [Float32(), Huffman(), "gaps", Gaps, None, 3])
def test_members_want_a_codec_of_masks(wrong):
    with pytest.raises(ConfigError, match=r"members\.positions = .*: a codec for uint8 arrays"):
        Members(wrong)


@every
def test_kmeans_with_every_label_coder(codec):
    x = DRAW.standard_normal(500).astype(np.float32)
    plain = KMeans(5)
    context = single(500)
    wanted = plain.decode(plain.encode(x, context), context)
    other = KMeans(5, labels=codec)
    assert np.array_equal(other.decode(other.encode(x, context), context), wanted)
