"""What a frame or a model file consists of: parts and bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinwire import frame as frames
from thinwire.codecs import Part, codec_name
from thinwire.errors import DecodeError, shown
from thinwire.files import check_folder, read_plain
from thinwire.frame import NO_BASE, Frame, Kind, Section
from thinwire.runtime.experiment import parse, read_file
from thinwire.runtime.trust import is_own

Row = tuple[str, int, str]  # part, bytes, what it is
TRUST = "inside the payloads: the run names code of its own and was not begun here; --trust imports it"
LONGEST = 1000  # characters of a file's own words: names of tensors, descriptions
HINT = "inside the payloads: inspect a frame that `thinwire run --save-frames` kept, or name its run with --run RUN"


@dataclass(frozen=True)
class Inspection:
    """A table of parts and bytes, the sum last; `hint`: how to see more."""

    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]
    hint: str = ""


def inspect(path: Path, run: Path | None = None, trust: bool = False) -> Inspection:
    """The parts of a frame or a model file; inside a frame's payloads too where its run is known.

    `run`: the run directory that the frame is of; a frame in RUN/frames needs none. Functions that its config.toml
    names are imported only if this user began the run here, or with `trust`; else payloads stay closed.
    DecodeError when the file is neither frame nor safetensors, or not of that run.
    """
    data = read_plain(path)
    if not data.startswith(frames.MAGIC):
        return _plain(data, _tensor_parts(data))
    frame, run = frames.read(data), run or _run_of(path)
    if frame.kind == Kind.MODEL or run is None:
        return _plain(data, _frame_parts(frame), "" if frame.kind == Kind.MODEL else HINT)
    check_folder(run)
    if not trust and (run / "config.toml").is_file() and not is_own(run, parse(read_file(run / "config.toml"))):
        return _plain(data, _frame_parts(frame), TRUST)
    from thinwire.runtime.opening import densities, payload_parts  # torch: for frames of a run alone

    rows = _opened_parts(frame, payload_parts(data, run))
    cells = [
        (shown(part), f"{size:,}", f"{100 * size / len(data):.1f}", shown(what, LONGEST)) for part, size, what in rows
    ]
    hint = _density(densities(data, run))
    return Inspection(("part", "bytes", "%", "what"), [*cells, ("total", f"{len(data):,}", "100.0", "")], hint)


def _density(kept: list[tuple[str, int, int]]) -> str:
    """Lines that say how dense each tensor is; none without a mask."""
    if not kept:
        return ""
    every = [*kept, ("all", sum(k for _, k, _ in kept), sum(n for _, _, n in kept))]
    lines = [f"  {name}: {100 * k / max(n, 1):.1f} % ({k:,} of {n:,})" for name, k, n in every]
    return "\n".join(["density", *lines])


def _plain(data: bytes, rows: list[Row], hint: str = "") -> Inspection:
    cells = [(shown(part), f"{size:,}", shown(what, LONGEST)) for part, size, what in rows]
    return Inspection(("part", "bytes", "what"), [*cells, ("total", f"{len(data):,}", "")], hint)


def _run_of(path: Path) -> Path | None:
    """The run directory of a frame that stands where `--save-frames` puts it."""
    folder = path.absolute().parent
    return folder.parent if folder.name == "frames" and (folder.parent / "config.toml").is_file() else None


def _opened_parts(frame: Frame, opened: dict[int, list[Part] | str]) -> list[Row]:
    """Rows of the sections, below each what is inside."""
    head, *sections = _frame_parts(frame)
    rows = [head]
    for number, (name, size, what) in enumerate(sections):
        inside = opened.get(number, [])
        if isinstance(inside, str):
            rows.append((name, size, inside))
        else:
            rows += [(name, size, what), *_inside(size, inside)]
    return rows


def _inside(size: int, parts: list[Part]) -> Iterator[Row]:
    """Indented rows; bytes of the section before its payload are the method's own header."""
    before = size - sum(part.bytes for part in parts if part.leaf) if parts else 0
    if before:
        yield "  before the payload", before, ""
    if before or len(parts) > 1:
        yield from (("  " * len(part.path) + part.path[-1], part.bytes, part.note) for part in parts)


def _frame_parts(frame: Frame) -> list[Row]:
    head = f"{frame.kind.name.lower()}, run {frame.run:08x}, version {frame.round}, codec {codec_name(frame.codec)}"
    if frame.base != NO_BASE:
        head += f", from version {frame.base}"
    if frame.samples:
        head += f", {frame.samples} samples"
    head += f", layout {frame.layout.hex()}"
    rows = [("header, table, checksum", frames.overhead_bytes(frame), head)]
    return rows + [(Section(sort).name.lower(), len(data), _describe(sort, data)) for sort, data in frame.sections]


def _describe(sort: int, data: bytes) -> str:
    return data.decode(errors="replace") if sort == Section.CONFIG else ""


def _tensor_parts(data: bytes) -> list[Row]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError, RecursionError):
        raise DecodeError("neither a thinwire frame nor a safetensors file") from None
    rows = [("header", 8 + length, str(header.get("__metadata__", {}).get("thinwire", "")))]
    return rows + [(name, len(t["data"]), _describe_tensor(t)) for name, t in tensors]


def _describe_tensor(tensor: dict[str, Any]) -> str:
    """Type and shape; of a sparse weight also how many entries are not 0."""
    what = f"{tensor['dtype']} {tuple(tensor['shape'])}"
    if tensor["dtype"] != "F32" or len(tensor["shape"]) < 2 or not tensor["data"]:
        return what
    density = float((np.frombuffer(tensor["data"], "<f4") != 0).mean())
    return what if density == 1 else f"{what}, density {100 * density:.1f} %"
