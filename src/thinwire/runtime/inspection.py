"""What a frame or a model file consists of: parts and bytes."""

from __future__ import annotations

import json
from pathlib import Path

from thinwire import frame as frames
from thinwire.codecs import codec_name
from thinwire.errors import DataError, DecodeError
from thinwire.frame import NO_BASE, Frame, Section


def parts(path: Path) -> list[tuple[str, str, str]]:
    """(part, bytes, what it is) of each part, the sum last. DecodeError when it is neither frame nor safetensors."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    rows = _frame_parts(frames.read(data)) if data.startswith(frames.MAGIC) else _tensor_parts(data)
    return [*((part, f"{size:,}", what) for part, size, what in rows), ("total", f"{len(data):,}", "")]


def _frame_parts(frame: Frame) -> list[tuple[str, int, str]]:
    head = f"{frame.kind.name.lower()}, run {frame.run:08x}, version {frame.round}, codec {codec_name(frame.codec)}"
    if frame.base != NO_BASE:
        head += f", from version {frame.base}"
    if frame.samples:
        head += f", {frame.samples} samples"
    head += f", layout {frame.layout.hex()}"
    overhead = frames.OVERHEAD_BYTES + frames.SECTION_OVERHEAD_BYTES * len(frame.sections)
    rows = [("header, table, checksum", overhead, head)]
    return rows + [(Section(sort).name.lower(), len(data), _describe(sort, data)) for sort, data in frame.sections]


def _describe(sort: int, data: bytes) -> str:
    return data.decode(errors="replace") if sort == Section.CONFIG else ""


def _tensor_parts(data: bytes) -> list[tuple[str, int, str]]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError):
        raise DecodeError("neither a thinwire frame nor a safetensors file") from None
    rows = [("header", 8 + length, str(header.get("__metadata__", {}).get("thinwire", "")))]
    return rows + [(name, len(t["data"]), f"{t['dtype']} {tuple(t['shape'])}") for name, t in tensors]
