"""The payloads of a frame, opened by the method and codecs of the run that it crossed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from thinwire import frame as frames
from thinwire.codecs import Part, tag, traced
from thinwire.errors import DataError, DecodeError
from thinwire.files import check_folder
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import Method
from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import parse, read_file
from thinwire.runtime.recorder import FRAMES, read_state
from thinwire.runtime.run import CONFIG
from thinwire.tensors import layout_of
from thinwire.versions import History

PAYLOADS = (
    Section.VALUES, Section.VALUES_SHARED, Section.STEP, Section.CONTROL, Section.SALIENCY, Section.MASK,
)  # fmt: skip
NO_STATE = "coded against what both ends hold: not opened"
SEVERAL = "read together with another payload: not opened"
Opened = list[Part] | str  # the parts of a payload, or why it is not opened


def payload_parts(data: bytes, run: Path) -> dict[int, Opened]:
    """What is inside each section that is a codec's payload.

    The method's own readers decode, so what they refuse is refused: DecodeError names what differs from the run.
    """
    if not (run / CONFIG).is_file():
        raise DataError(f"{run}: no {CONFIG}, this is not a run directory")
    check_folder(run)
    frame, assembly = frames.read(data), assemble(parse(read_file(run / CONFIG)))
    method, folder = assembly.method, run / FRAMES
    codec = {Kind.REQUEST: 0, Kind.UPDATE: tag(method.uplink)}.get(frame.kind, tag(method.downlink))
    frames.expect(frame, run=assembly.run_id, codec=None if frame.all(Section.SALIENCY) else codec)
    if frame.kind == Kind.STEP or (frame.kind == Kind.KEYFRAME and frame.all(Section.STEP)):
        opened = _steps(frame, method, folder)
    elif frame.all(Section.MASK):
        opened = _masked(frame, data, method, folder, assembly.clients)
    else:
        payloads = [number for number, (sort, _) in enumerate(frame.sections) if sort in PAYLOADS]
        found = SEVERAL if payloads[1:] else _alone(frame, data, method, folder, assembly.clients)
        opened = dict.fromkeys(payloads, found)
    sections = {number: data for number, (sort, data) in enumerate(frame.sections) if sort in PAYLOADS}
    return {number: _fitting(sections[number], found) for number, found in opened.items() if number in sections}


def _fitting(payload: bytes, found: Opened) -> Opened:
    """The parts, unless they are more than the payload: the method read another one with it, or this one twice."""
    if not isinstance(found, str):
        found = [part for part in found if part.path != ("buffers",)]  # a section of their own
    if isinstance(found, str) or sum(part.bytes for part in found if part.leaf) <= len(payload):
        return found
    return SEVERAL


def _alone(frame: Frame, data: bytes, method: Method, folder: Path, clients: Sequence[int]) -> Opened:
    """The pieces of a keyframe or an update, all payloads in one."""
    if frame.kind == Kind.KEYFRAME:
        return traced(lambda: method.receive(data, None, None))
    return _update(frame, data, method, folder, clients) if frame.kind == Kind.UPDATE else []


def _masked(frame: Frame, data: bytes, method: Method, folder: Path, clients: Sequence[int]) -> dict[int, Opened]:
    """The mask's pieces and those of the weights that it keeps."""
    found = _alone(frame, data, method, folder, clients)
    if isinstance(found, str):
        return dict.fromkeys(range(len(frame.sections)), found)
    mask = [replace(part, path=part.path[1:]) for part in found if part.path[0] == "mask" and part.path[1:]]
    rest = [part for part in found if part.path[0] != "mask"]
    return {number: mask if sort == Section.MASK else rest for number, (sort, _) in enumerate(frame.sections)}


def _update(frame: Frame, data: bytes, method: Method, folder: Path, clients: Sequence[int]) -> Opened:
    """Any client's reader will do: who sent an update shapes the seed of its values, no length in it.

    Where clients have masks of their own, the one whose layout it is.
    """
    server = read_state(folder, method, frame.round)
    if server is None and not frame.all(Section.VALUES_SHARED):
        server = replace(method.init(), history=History(frame.round))  # of a state, only the version is asked for
    if server is None:
        return NO_STATE
    for client in clients[:-1]:
        try:
            return traced(partial(method.read, server, client, data))
        except DecodeError:
            continue
    return traced(partial(method.read, server, clients[-1], data))


def _steps(frame: Frame, method: Method, folder: Path) -> dict[int, Opened]:
    """Each step alone, by the state that it builds on; of a keyframe with steps behind it, these."""
    numbers = [number for number, (sort, _) in enumerate(frame.sections) if sort == Section.STEP]
    key = frame.kind == Kind.KEYFRAME
    base = frame.round - len(numbers) if key else frame.base
    others = [sort for sort, _ in frame.sections if sort not in (Section.STEP, Section.BUFFERS)]
    if base < 0 or base + len(numbers) != frame.round or (not key and others):
        raise DecodeError(f"frame: {len(numbers)} steps do not lead from version {frame.base} to {frame.round}")
    return {
        number: _step(replace(frame, sections=frame.sections[number : number + 1]), version, method, folder)
        for version, number in enumerate(numbers, start=base)
    }


def _step(frame: Frame, base: int, method: Method, folder: Path) -> Opened:
    """A frame's only step, from a version."""
    server = read_state(folder, method, base)
    if server is None:
        return NO_STATE
    alone = frames.write(replace(frame, kind=Kind.STEP, base=base, round=base + 1))
    held = method.receive(method.broadcast(server, None), None, None)
    return traced(lambda: method.receive(alone, held, base))


def densities(data: bytes, run: Path) -> list[tuple[str, int, int]]:
    """(tensor, entries kept, entries) under the mask that a frame leads to or was made under; [] without a mask.

    The payloads must have been opened before: nothing is checked again.
    """
    frame, method = frames.read(data), assemble(parse(read_file(run / CONFIG))).method
    if frame.kind == Kind.KEYFRAME:
        holder = method.receive(data, None, None).value
    else:
        holder = read_state(run / FRAMES, method, frame.round if frame.kind == Kind.UPDATE else frame.base)
    if holder is not None and frame.kind == Kind.STEP:
        held = method.receive(method.broadcast(holder, None), None, None)
        holder = method.receive(data, held, frame.base).value
    mask = getattr(holder, "mask", None)
    if mask is None:
        return []
    layout = layout_of(method.model(method.init()))
    return [(entry.name, int(mask[entry.slice].sum(dtype=int)), entry.size) for entry in layout]
