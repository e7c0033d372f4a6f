"""Frame: what it costs, and one test for every way to be wrong, in the order of the bytes."""

import struct
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire import frame as wire
from thinwire.errors import ConfigError, DecodeError
from thinwire.frame import (
    MAX_SAMPLES,
    NO_BASE,
    OVERHEAD_BYTES,
    SECTION_OVERHEAD_BYTES,
    Frame,
    Kind,
    Section,
    expect,
    overhead_bytes,
    read,
    write,
)

FRAME = Frame(
    Kind.UPDATE, run=0xDEADBEEF, round=7, codec=0x01020304, layout=b"layout-8",
    sections=((Section.VALUES_SHARED, b"payload"), (Section.TOTAL, b""), (Section.STEP, b"\0\1")), samples=60,
)  # fmt: skip
DATA = write(FRAME)
STEP = replace(FRAME, kind=Kind.STEP, base=6)

frames = st.builds(
    lambda kind, base, **fields: Frame(kind=kind, base=base if kind == Kind.STEP else NO_BASE, **fields),
    kind=st.sampled_from(Kind),
    run=st.integers(0, 2**32 - 1),
    round=st.integers(0, 2**32 - 1),
    codec=st.integers(0, 2**32 - 1),
    layout=st.binary(min_size=8, max_size=8),
    sections=st.lists(st.tuples(st.sampled_from(Section), st.binary(max_size=50)), max_size=6).map(tuple),
    base=st.integers(0, NO_BASE - 1),
    samples=st.integers(0, MAX_SAMPLES),
)


def patched(offset, values, data=DATA, layout="<B"):
    """The frame with other bytes at an offset and a checksum that fits."""
    body = bytearray(data[:-4])
    struct.pack_into(layout, body, offset, values)
    return bytes(body) + struct.pack("<I", crc32(body))


def refused(data, message):
    with pytest.raises(DecodeError, match=message):
        read(data)


@given(frames)
@settings(max_examples=200, deadline=None)
def test_round_trip_and_overhead(frame):
    data = write(frame)
    assert read(data) == frame
    assert len(data) == 37 + sum(6 + len(payload) for _, payload in frame.sections)


def test_overhead_constants():
    assert (OVERHEAD_BYTES, SECTION_OVERHEAD_BYTES) == (37, 6)


def test_255_sections_and_none():
    for count in (0, 255):
        frame = replace(FRAME, sections=((Section.STEP, b"x"),) * count)
        assert read(write(frame)) == frame


def test_all_and_one():
    frame = replace(FRAME, sections=((Section.STEP, b"a"), (Section.TOTAL, b"t"), (Section.STEP, b"b")))
    assert frame.all(Section.STEP) == [b"a", b"b"]
    assert frame.one(Section.TOTAL) == b"t"
    with pytest.raises(DecodeError, match="2 sections step, exactly 1 expected"):
        frame.one(Section.STEP)
    with pytest.raises(DecodeError, match="0 sections seed, exactly 1 expected"):
        frame.one(Section.SEED)


# The writer refuses what the reader would.


@pytest.mark.parametrize("field", ["run", "round", "base", "codec"])
@pytest.mark.parametrize("value", [-1, 2**32])
def test_writer_refuses_numbers_that_do_not_fit(field, value):
    with pytest.raises(ConfigError, match=f"frame.{field} = {value}: 0 to 4294967295"):
        write(replace(FRAME, **{field: value}))


@pytest.mark.parametrize("samples", [-1, MAX_SAMPLES + 1])
def test_writer_refuses_samples_out_of_range(samples):
    with pytest.raises(ConfigError, match=r"frame\.samples"):
        write(replace(FRAME, samples=samples))


def test_writer_refuses_more_than_255_sections():
    with pytest.raises(ConfigError, match=r"frame\.sections = 256"):
        write(replace(FRAME, sections=((Section.STEP, b""),) * 256))


class Long(bytes):
    """Says that it is 4 GiB long, and has no bytes."""

    def __len__(self):
        return 2**32


def test_a_section_of_4_gib_has_a_table_of_eight_byte_lengths():
    """In version 2; the lengths of version 1 end at 2³² − 1."""
    data = write(replace(FRAME, sections=((Section.STEP, Long()), (Section.TOTAL, b"t"))))
    assert data[2] == 2
    assert data[33:53] == struct.pack("<HQHQ", Section.STEP, 2**32, Section.TOTAL, 1)
    assert data[53:-4] == b"t"
    assert overhead_bytes(replace(FRAME, sections=((Section.STEP, Long()),))) == 37 + 10


@pytest.mark.parametrize("sizes", [(8,), (0, 9, 3), (7, 8)])
def test_version_2_is_read_as_version_1(monkeypatch, sizes):
    """With a small bound in place of 4 GiB."""
    monkeypatch.setattr(wire, "LONG", 8)
    frame = replace(FRAME, sections=tuple((Section.STEP, bytes(range(size))) for size in sizes))
    data = write(frame)
    assert data[2] == 2
    assert read(data) == frame
    assert len(data) == sum(sizes) + overhead_bytes(frame) == sum(sizes) + 37 + 10 * len(sizes)
    for number in range(len(data)):
        with pytest.raises(DecodeError):
            read(data[:number])
        with pytest.raises(DecodeError):
            read(data[:number] + bytes([data[number] ^ 1]) + data[number + 1 :])


def test_version_1_is_what_it_was(monkeypatch):
    """A frame whose sections all fit its table has the very bytes of before."""
    assert write(FRAME)[2] == 1
    monkeypatch.setattr(wire, "LONG", 1 + max(len(data) for _, data in FRAME.sections))
    assert write(FRAME) == DATA


def test_version_2_without_need_is_refused(monkeypatch):
    """One frame, one way to write it."""
    monkeypatch.setattr(wire, "LONG", 1)
    data = write(FRAME)
    monkeypatch.undo()
    refused(data, "frame: format version 2 without a section of 4294967296 bytes or more")


def test_a_length_beyond_the_frame_is_refused_in_version_2(monkeypatch):
    monkeypatch.setattr(wire, "LONG", 4)
    data = bytearray(write(replace(FRAME, sections=((Section.STEP, b"12345"),))))
    data[35:43] = struct.pack("<Q", 2**63)
    refused(bytes(data), "sections end at byte")


@pytest.mark.parametrize("layout", [b"", b"1234567", b"123456789"])
def test_writer_refuses_a_layout_digest_of_another_length(layout):
    with pytest.raises(ConfigError, match=r"frame\.layout = .* 8 bytes"):
        write(replace(FRAME, layout=layout))


# The reader, in the order of the bytes.


@pytest.mark.parametrize("length", [0, 1, 36])
def test_shorter_than_the_least_frame(length):
    refused(DATA[:length], f"frame: {length} bytes, at least 37 needed")


def test_wrong_magic():
    refused(patched(0, b"WT", layout="2s"), "starts with b'WT', not b'TW'")


@pytest.mark.parametrize("version", [0, 3, 255])
def test_wrong_version(version):
    refused(patched(2, version), f"format version {version}, this reader knows 1")


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_unknown_kind(kind):
    refused(patched(3, kind), f"unknown kind {kind}")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.STEP])
def test_base_of_a_frame_that_is_no_step(kind):
    refused(patched(12, 6, write(replace(FRAME, kind=kind)), "<I"), "a step names its base version and nothing else")


def test_step_without_base():
    refused(patched(12, NO_BASE, write(STEP), "<I"), "a step names its base version and nothing else")


def test_too_many_samples():
    refused(patched(28, MAX_SAMPLES + 1, layout="<I"), "16777217 samples, at most 16777216 allowed")


def test_table_longer_than_the_frame():
    refused(patched(32, 255), f"{len(DATA)} bytes end inside the table of 255 sections")


@pytest.mark.parametrize("sort", [0, 13, 2**16 - 1])
def test_unknown_sort_of_section(sort):
    refused(patched(33 + 6, sort, layout="<H"), f"unknown sort {sort} of section 1")


@pytest.mark.parametrize("length", [6, 8, 2**31, 2**32 - 1])
def test_sections_that_do_not_fill_the_frame(length):
    refused(patched(35, length, layout="<I"), "sections end at byte .*, the checksum starts at")


def test_fewer_sections_than_the_frame_holds():
    refused(patched(32, 2), "sections end at byte .*, the checksum starts at")


def test_trailing_byte():
    refused(DATA + b"\0", "sections end at byte")
    refused(DATA[:-4] + b"\0" + struct.pack("<I", crc32(DATA[:-4] + b"\0")), "sections end at byte")


def test_wrong_checksum():
    refused(DATA[:-1] + bytes([DATA[-1] ^ 1]), "checksum does not match")


@pytest.mark.parametrize("frame", [FRAME, STEP, replace(FRAME, sections=())])
def test_every_flipped_bit_is_refused(frame):
    data = write(frame)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            read(bytes(flipped))


def test_every_truncation_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(DecodeError):
            read(DATA[:length])
        with pytest.raises(DecodeError):
            read(DATA[:length] + struct.pack("<I", crc32(DATA[:length])) if length < len(DATA) - 4 else DATA[:length])


# What the receiver waits for, field by field.

WANTED = {"run": FRAME.run, "kinds": (Kind.UPDATE,), "round": 7, "codec": FRAME.codec, "layout": FRAME.layout}


def test_expected_frame_passes():
    assert expect(FRAME, **WANTED) is FRAME
    assert expect(FRAME) is FRAME


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", 1, "of run deadbeef, this is run 00000001"),
        ("kinds", (Kind.KEYFRAME, Kind.STEP), "kind update, expected keyframe or step"),
        ("round", 8, "of round 7, this is round 8"),
        ("codec", 5, "codec tag 01020304, expected 00000005: the two ends differ in configuration"),
        ("layout", b"87654321", "layout 6c61796f75742d38, expected 3837363534333231: the two ends differ in model"),
    ],
)
def test_unexpected_field(field, value, message):
    with pytest.raises(DecodeError, match=message):
        expect(FRAME, **{**WANTED, field: value})


def test_the_first_difference_is_named():
    with pytest.raises(DecodeError, match="of run"):
        expect(FRAME, run=0, kinds=(Kind.STEP,), round=0, codec=0, layout=b"")
    with pytest.raises(DecodeError, match="kind update"):
        expect(FRAME, run=FRAME.run, kinds=(Kind.STEP,), round=0, codec=0, layout=b"")
