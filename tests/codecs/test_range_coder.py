"""The range coder against entropy and, byte for byte, against an exact coder of whole numbers."""

import numpy as np
import pytest
import rangecoder_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import rangecoder
from thinwire.errors import DecodeError

WHOLE = rangecoder.WHOLE


def coded_bits(bits, index, frequencies):
    return rangecoder.encode_bits(
        np.array(bits, np.uint8), np.array(index, np.uint32), np.array(frequencies, np.uint32)
    )


def assert_like_reference(bits, index, frequencies):
    """Same bytes as the reference; both readers give the bits back."""
    each = [int(frequencies[i]) for i in index]
    payload = coded_bits(bits, index, frequencies)
    assert payload == reference.encode_bits([int(b) for b in bits], each)
    back = rangecoder.decode_bits(payload, np.array(index, np.uint32), np.array(frequencies, np.uint32))
    assert back.tolist() == list(bits) == reference.decode_bits(payload, each)
    return payload


def bits_cost(bits, frequencies):
    """Bits that entries cost under their frequencies, exactly."""
    p = np.where(bits == 1, frequencies, WHOLE - frequencies.astype(np.int64)) / WHOLE
    return float(-np.log2(p).sum())


@pytest.mark.parametrize("frequency", [1, 2, 77, 1000, 2**15 - 1, 2**15, 2**15 + 1, 60000, WHOLE - 2, WHOLE - 1])
def test_bits_reach_entropy(frequency):
    draw = np.random.default_rng(frequency)
    bits = (draw.integers(0, WHOLE, 400_000) < frequency).astype(np.uint8)
    index, frequencies = np.zeros(bits.size, np.uint32), np.array([frequency], np.uint32)
    payload = rangecoder.encode_bits(bits, index, frequencies)
    assert len(payload) <= bits_cost(bits, np.full(bits.size, frequency)) / 8 * 1.001 + 16
    assert np.array_equal(rangecoder.decode_bits(payload, index, frequencies), bits)


@pytest.mark.parametrize("symbols", [2, 3, 17, 256])
def test_symbols_reach_entropy(symbols):
    draw = np.random.default_rng(symbols)
    index = draw.integers(0, 3, 200_000).astype(np.uint32)
    x = np.minimum(draw.geometric(0.05 + 0.3 * index / 2) - 1, symbols - 1).astype(np.uint32)
    table = np.stack([np.bincount(x[index == row], minlength=symbols) for row in range(3)])
    cumulative = np.stack([rangecoder.normalise(row) for row in table])
    payload = rangecoder.encode_symbols(x, index, cumulative)
    counts = table[table > 0]
    entropy = -(counts * np.log2((table / table.sum(axis=1, keepdims=True))[table > 0])).sum()
    assert len(payload) <= entropy / 8 * 1.001 + 16
    assert np.array_equal(rangecoder.decode_symbols(payload, index, cumulative), x)


@given(
    st.lists(st.integers(0, WHOLE), min_size=1, max_size=6).flatmap(
        lambda f: st.tuples(st.just(f), st.lists(st.tuples(st.integers(0, len(f) - 1), st.booleans()), max_size=300))
    )
)
@settings(max_examples=150, deadline=None)
def test_bits_are_those_of_the_exact_coder(case):
    frequencies, entries = case
    index = [i for i, _ in entries]
    bits = [int(f == WHOLE or (bit and f > 0)) for f, bit in ((frequencies[i], bit) for i, bit in entries)]
    assert_like_reference(bits, index, frequencies)


@given(st.integers(0, 2**32 - 1), st.integers(1, 256), st.integers(1, 4), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_symbols_are_those_of_the_exact_coder(seed, symbols, classes, count):
    draw = np.random.default_rng(seed)
    histogram = draw.integers(0, 2, (classes, symbols)) * draw.geometric(
        10.0 ** -draw.integers(0, 6), (classes, symbols)
    )
    cumulative = np.stack([rangecoder.normalise(row) for row in histogram])
    index = draw.integers(0, classes, count).astype(np.uint32)
    possible = [np.flatnonzero(np.diff(row.astype(np.int64))) for row in cumulative]
    x = np.array([draw.choice(possible[i]) for i in index], np.uint32)
    tables = [cumulative[i].tolist() for i in index]
    payload = rangecoder.encode_symbols(x, index, cumulative)
    parts = [(table[s], table[s + 1] - table[s]) for table, s in zip(tables, x.tolist(), strict=True)]
    assert payload == reference.encode(parts)
    assert rangecoder.decode_symbols(payload, index, cumulative).tolist() == x.tolist()
    assert reference.decode(payload, tables) == x.tolist()


def _climb(words):
    """Bits of probability 1/2 that keep low + width just above and low just below a run of 0xFFFFFFFF words."""
    target, bits, low, width = (1 << (32 * words + 31)) - 1, [], 0, 2**64 - 1
    scale = 32 * words + 64
    widened = 0
    while len(bits) < 32 * words + 8:
        part = (width >> 16) * 2**15
        goal = (target << (scale - 32 * words - 32)) >> (scale - 64 - 32 * widened)
        bit = int(goal < low + part)
        low, width = (low, part) if bit else (low + part, width - part)
        bits.append(bit)
        if width < 2**32:
            low, width, widened = low << 32, width << 32, widened + 1
    return bits


@pytest.mark.parametrize("words", [1, 2, 5, 40])
def test_a_carry_runs_through_words_of_ones(words):
    bits = _climb(words)
    before = assert_like_reference(bits, [0] * len(bits), [2**15])
    carried = 0
    for tail in range(64):
        after = [*bits, *([0] * tail)]
        payload = assert_like_reference(after, [0] * len(after), [2**15])
        carried += payload[:4] != before[:4] or b"\xff\xff\xff\xff" * (words - 1) in payload
    assert carried
    written = np.zeros(words + 4, np.uint32)
    written[0], written[1 : words + 1] = 7, 2**32 - 1
    rangecoder.carry(written, words + 1)
    assert written.tolist() == [8] + [0] * (words + 3)


def test_carries_do_happen_through_full_words():
    """Random streams near the upper end: some do cross 0xFFFFFFFF, and all equal the reference."""
    crossed = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        bits = (draw.random(160) < 0.0005).astype(np.uint8)  # nearly all zeros of a very likely one: low climbs
        payload = assert_like_reference(bits.tolist(), [0] * bits.size, [WHOLE - 1 - seed % 5])
        crossed += b"\xff\xff\xff\xff" in payload
    assert crossed


@pytest.mark.parametrize("frequency", [1, WHOLE - 1])
@pytest.mark.parametrize("bit", [0, 1])
def test_skewed_to_the_last_unit(frequency, bit):
    assert_like_reference([bit] * 500, [0] * 500, [frequency])
    assert_like_reference([bit, 1 - bit] * 250, [0] * 500, [frequency])


def test_entries_that_are_certain_cost_nothing():
    bits = [0, 1] * 50
    assert coded_bits(bits, bits, [0, WHOLE]) == b""
    assert_like_reference(bits, bits, [0, WHOLE])
    mixed = [i % 3 for i in range(99)]
    assert_like_reference([0 if i == 0 else 1 for i in mixed], mixed, [0, WHOLE, 2**15])
    certain = np.array([[0, 0, WHOLE, WHOLE]], np.uint32)
    symbols, index = np.ones(10, np.uint32), np.zeros(10, np.uint32)
    assert rangecoder.encode_symbols(symbols, index, certain) == b""
    assert rangecoder.decode_symbols(b"", index, certain).tolist() == [1] * 10


def test_rare_symbols_of_a_long_message_do_not_overrun_the_buffer():
    """256 symbols, 255 of them once: the likely one costs 0.0056 bits each, far above entropy, and must have room."""
    x = np.zeros(3_000_000, np.uint32)
    x[:: x.size // 255][:255] = np.arange(1, 256)
    index, cumulative = np.zeros(x.size, np.uint32), rangecoder.normalise(np.bincount(x))[None]
    payload = rangecoder.encode_symbols(x, index, cumulative)
    expected = 255 * 16 + (x.size - 255) * -np.log2(1 - 255 / WHOLE)
    assert abs(len(payload) - expected / 8) < 16
    assert np.array_equal(rangecoder.decode_symbols(payload, index, cumulative), x)


def test_nothing_to_code_is_no_bytes():
    assert coded_bits([], [], [5]) == b""
    assert rangecoder.decode_bits(b"", np.zeros(0, np.uint32), np.array([5], np.uint32)).size == 0


def test_reader_refuses_a_last_zero_byte_and_bytes_left_over():
    bits, index, frequencies = np.array([0, 1] * 20, np.uint8), np.zeros(40, np.uint32), np.array([9000], np.uint32)
    payload = rangecoder.encode_bits(bits, index, frequencies)
    for tail in (b"\1", b"\x80", b"\xff\xff", b"\0\0\1"):
        with pytest.raises(DecodeError):
            rangecoder.decode_bits(payload + tail, index, frequencies)
    with pytest.raises(DecodeError, match="zero byte"):
        rangecoder.decode_bits(payload + b"\0", index, frequencies)
    with pytest.raises(DecodeError, match="left over"):
        rangecoder.decode_bits(payload + bytes(12) + b"\1", index, frequencies)


@given(st.binary(max_size=24), st.integers(0, 60), st.integers(1, WHOLE - 1))
@settings(max_examples=300, deadline=None)
def test_what_reads_is_what_would_be_written(payload, count, frequency):
    """No two payloads stand for the same entries: any bytes are refused or are the very ones of their entries."""
    index, frequencies = np.zeros(count, np.uint32), np.array([frequency], np.uint32)
    cumulative = np.array([[0, frequency, frequency, WHOLE]], np.uint32)
    for decode, encode, table in (
        (rangecoder.decode_bits, rangecoder.encode_bits, frequencies),
        (rangecoder.decode_symbols, rangecoder.encode_symbols, cumulative),
    ):
        try:
            entries = decode(payload, index, table)
        except DecodeError:
            continue
        assert encode(entries, index, table) == payload


@given(st.lists(st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**40)), min_size=1, max_size=256))
@settings(max_examples=200, deadline=None)
def test_normalise(histogram):
    counts = np.array(histogram, np.int64)
    if counts.sum() * WHOLE >= 2**62:
        counts = counts >> 12
    cumulative = rangecoder.normalise(counts)
    frequencies = np.diff(cumulative.astype(np.int64))
    assert cumulative.dtype == np.uint32
    assert cumulative[0] == 0
    assert cumulative[-1] == WHOLE
    assert (frequencies[counts > 0] > 0).all()
    assert (frequencies >= 0).all()
    if counts.any():
        assert (frequencies[counts == 0] == 0).all()
        total, exact = int(counts.sum()), [int(c) for c in counts]
        plain = [max(1, c * WHOLE // total) if c else 0 for c in exact]
        plain[exact.index(max(exact))] += WHOLE - sum(plain)
        assert frequencies.tolist() == plain
    else:
        assert frequencies[0] == WHOLE


def test_normalise_of_256_symbols():
    counts = np.ones(256, np.int64)
    assert np.diff(rangecoder.normalise(counts)).tolist() == [256] * 256
    counts[3] = 10**12
    frequencies = np.diff(rangecoder.normalise(counts).astype(np.int64))
    assert frequencies[3] == WHOLE - 255
    assert frequencies.min() == 1
