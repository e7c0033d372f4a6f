"""Frame: the envelope of everything that travels. FORMAT.md is the specification; this module is its only reader.

All integers are little-endian. A frame is header (33 bytes), section table, sections, CRC-32. The table has 6 bytes for
each section; in version 2, which only frames with a section of 4 GiB or more are, it has 10.
The reader checks in the order of the bytes and refuses with one message per way to be wrong.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from thinwire.errors import ConfigError, DecodeError

MAGIC = b"TW"
VERSION, LONG_VERSION = 1, 2
MAX_SAMPLES = 2**24
LONG = 2**32  # bytes of a section from which on the table of version 1 has no room for its length
NO_BASE = 2**32 - 1  # the base version of a frame that builds on nothing

_HEADER = struct.Struct("<2sBBIIII8sIB")
_SECTION, _LONG_SECTION = struct.Struct("<HI"), struct.Struct("<HQ")
_CHECKSUM = struct.Struct("<I")
OVERHEAD_BYTES = _HEADER.size + _CHECKSUM.size
SECTION_OVERHEAD_BYTES = _SECTION.size


class Kind(IntEnum):
    """What a frame is for."""

    KEYFRAME = 1
    STEP = 2
    UPDATE = 3
    MODEL = 4
    REQUEST = 5  # a client asks for a keyframe


class Section(IntEnum):
    """What a section holds."""

    VALUES = 1  # a codec's payload, coded without a shared array
    VALUES_SHARED = 2  # a codec's payload, coded with the shared array of the frame's version
    STEP = 3  # one step of the sequence of global models
    TOTAL = 4  # number of masks that the votes count, as a varint
    SEED = 5  # seed of the frozen weights (8 bytes) and their digest (8 bytes)
    CONFIG = 6  # JSON: the model's name and arguments
    CONTROL = 7  # SCAFFOLD's control variate, float32
    SALIENCY = 8  # how much the loss depends on each weight: a codec's payload
    MASK = 9  # which weights there are, `mask`
    BUFFERS = 10  # a model's buffers that differ from those known: a bit each, then their entries as they are
    STANDING = 11  # digest (8 bytes) of frozen parameters and first buffers, which both ends have
    REST = 12  # what a mask does not make: its digest (8 bytes), a bit each, then the entries that are not left out
    TERMS = 16  # JSON: the arrays of a Flower app's message by name, and the codecs both ways
    RAW = 17  # arrays that are not coded, as they are
    CHANGES = 18  # JSON: how the arrays of a reply differ from those of the message that it answers


_KINDS, _SORTS = frozenset(map(int, Kind)), frozenset(map(int, Section))


@dataclass(frozen=True)
class Frame:
    """A frame's fields; `sections` are (what it holds, its bytes) in order.

    `round` is the version that a keyframe or step leads to, and the version that an update was trained from.
    `base` is the version that a step frame builds on, NO_BASE for all other kinds.
    """

    kind: Kind
    run: int
    round: int
    codec: int
    layout: bytes
    sections: tuple[tuple[int, bytes], ...] = ()
    base: int = NO_BASE
    samples: int = 0

    def all(self, wanted: Section) -> list[bytes]:
        """Bytes of every section of one sort, in order."""
        return [data for sort, data in self.sections if sort == wanted]

    def one(self, wanted: Section) -> bytes:
        """Bytes of the section that must be there exactly once; DecodeError if it is not."""
        found = self.all(wanted)
        if len(found) != 1:
            raise DecodeError(f"frame: {len(found)} sections {wanted.name.lower()}, exactly 1 expected")
        return found[0]

    def sole(self, wanted: Section) -> bytes:
        """Bytes of the only section, which must be of this sort; DecodeError otherwise."""
        if len(self.sections) != 1:
            raise DecodeError(f"frame: {len(self.sections)} sections, {wanted.name.lower()} alone expected")
        return self.one(wanted)


def write(frame: Frame) -> bytes:
    """Bytes of a frame: 37 + 6 per section more than its sections hold. ConfigError on fields out of range."""
    _check_fields(frame)
    long = _is_long(frame)
    header = _HEADER.pack(
        MAGIC, LONG_VERSION if long else VERSION, frame.kind, frame.run, frame.round, frame.base,
        frame.codec, frame.layout, frame.samples, len(frame.sections),
    )  # fmt: skip
    entry = _LONG_SECTION if long else _SECTION
    table = b"".join(entry.pack(sort, len(data)) for sort, data in frame.sections)
    parts, checksum = [header, table, *(data for _, data in frame.sections)], 0
    for part in parts:
        checksum = crc32(part, checksum)
    return b"".join([*parts, _CHECKSUM.pack(checksum)])


def _is_long(frame: Frame) -> bool:
    """Does the table need lengths of eight bytes?"""
    return any(len(data) >= LONG for _, data in frame.sections)


def overhead_bytes(frame: Frame) -> int:
    """What a frame has beside the bytes of its sections: header, table and checksum."""
    return OVERHEAD_BYTES + (_LONG_SECTION if _is_long(frame) else _SECTION).size * len(frame.sections)


def _check_fields(frame: Frame) -> None:
    fields = [(name, getattr(frame, name), 2**32) for name in ("run", "round", "base", "codec")]
    fields += [("samples", frame.samples, MAX_SAMPLES + 1), ("sections", len(frame.sections), 256)]
    for field, value, bound in fields:
        if not 0 <= value < bound:
            raise ConfigError(f"frame.{field}", value, f"0 to {bound - 1}")
    if len(frame.layout) != 8:
        raise ConfigError("frame.layout", frame.layout, "a digest of 8 bytes")


def read(data: bytes) -> Frame:
    """The frame that the bytes hold; DecodeError names the first thing that is wrong. Sections are copied last."""
    if len(data) < OVERHEAD_BYTES:
        raise DecodeError(f"frame: {len(data)} bytes, at least {OVERHEAD_BYTES} needed")
    magic, version, kind, run, round, base, codec, layout, samples, count = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DecodeError(f"frame: starts with {magic!r}, not {MAGIC!r}")
    if version not in (VERSION, LONG_VERSION):
        raise DecodeError(f"frame: format version {version}, this reader knows {VERSION} and {LONG_VERSION}")
    if kind not in _KINDS:
        raise DecodeError(f"frame: unknown kind {kind}")
    if (base == NO_BASE) == (kind == Kind.STEP):
        raise DecodeError("frame: a step names its base version and nothing else does")
    if samples > MAX_SAMPLES:
        raise DecodeError(f"frame: {samples} samples, at most {MAX_SAMPLES} allowed")
    spans = _section_spans(data, count, _LONG_SECTION if version == LONG_VERSION else _SECTION)
    if version == LONG_VERSION and all(stop - start < LONG for _, start, stop in spans):
        raise DecodeError(f"frame: format version {version} without a section of {LONG} bytes or more")
    if crc32(memoryview(data)[: -_CHECKSUM.size]) != _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0]:
        raise DecodeError("frame: checksum does not match")
    sections = tuple((sort, bytes(data[start:stop])) for sort, start, stop in spans)
    return Frame(Kind(kind), run, round, codec, layout, sections, base, samples)


def claim(data: bytes) -> int:
    """The samples in the header of a frame that is not read yet; 0 where there is none."""
    return int(_HEADER.unpack_from(data)[-2]) if len(data) >= _HEADER.size else 0


def _section_spans(data: bytes, count: int, entry: struct.Struct) -> list[tuple[int, int, int]]:
    """(sort, first byte, end) of each section; DecodeError unless sections and checksum fill the frame exactly."""
    start = _HEADER.size + count * entry.size
    if len(data) < start + _CHECKSUM.size:
        raise DecodeError(f"frame: {len(data)} bytes end inside the table of {count} sections")
    spans = []
    for index in range(count):
        sort, length = entry.unpack_from(data, _HEADER.size + index * entry.size)
        if sort not in _SORTS:
            raise DecodeError(f"frame: unknown sort {sort} of section {index}")
        spans.append((sort, start, start + length))
        start += length
    if start + _CHECKSUM.size != len(data):
        raise DecodeError(f"frame: sections end at byte {start}, the checksum starts at {len(data) - _CHECKSUM.size}")
    return spans


def expect(
    frame: Frame,
    *,
    run: int | None = None,
    kinds: tuple[Kind, ...] = tuple(Kind),
    round: int | None = None,
    codec: int | None = None,
    layout: bytes | None = None,
) -> Frame:
    """The same frame if it is what the receiver waits for; else DecodeError, one message a field."""
    if run is not None and frame.run != run:
        raise DecodeError(f"frame: of run {frame.run:08x}, this is run {run:08x}")
    if frame.kind not in kinds:
        raise DecodeError(
            f"frame: kind {frame.kind.name.lower()}, expected {' or '.join(k.name.lower() for k in kinds)}"
        )
    if round is not None and frame.round != round:
        raise DecodeError(f"frame: of round {frame.round}, this is round {round}")
    if codec is not None and frame.codec != codec:
        raise DecodeError(
            f"frame: codec tag {frame.codec:08x}, expected {codec:08x}: the two ends differ in configuration"
        )
    if layout is not None and frame.layout != layout:
        raise DecodeError(f"frame: layout {frame.layout.hex()}, expected {layout.hex()}: the two ends differ in model")
    return frame
