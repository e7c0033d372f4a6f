"""Keyframes and steps: one sequence of global models, the same on the server and on every client.

Version t is version t − 1 with step t applied. A client that holds v gets the steps v + 1 … t; one that is new, or
for whom it is shorter, gets a keyframe that holds version t exactly: the version itself or, where that is shorter,
version 0 and all steps since. What a version *is* (counts, a weight vector) and how a step changes it belongs to the
method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar
from zlib import crc32

from thinwire.errors import DecodeError, NeedKeyframe
from thinwire.frame import NO_BASE, Frame, Kind, Section

T = TypeVar("T")
Sections = tuple[tuple[int, bytes], ...]
MAX_STEPS = 64
SPELT_OUT = -1  # in place of the version that a client has: it has none, and the seed makes other values there


@dataclass(frozen=True)
class History:
    """The server's end: the current version and the payloads of the last steps, newest last."""

    version: int = 0
    steps: tuple[bytes, ...] = ()

    def push(self, step: bytes, most_bytes: int) -> History:
        """The history one version on; steps that together outweigh a keyframe of `most_bytes` are forgotten."""
        steps, held = [step], len(step)
        for older in reversed(self.steps[-MAX_STEPS + 1 :]):
            held += len(older)
            if held > most_bytes:
                break
            steps.append(older)
        return History(self.version + 1, tuple(reversed(steps)))

    def since(self, have: int | None) -> tuple[bytes, ...] | None:
        """Steps from version `have` to the current one; None when they are not (all) kept."""
        missing = None if have is None else self.version - have
        if missing is None or not 0 <= missing <= len(self.steps):
            return None
        return self.steps[len(self.steps) - missing :]

    def message(
        self,
        have: int | None,
        keyframe: Callable[[], Sections],
        frame: Frame,
        first: Callable[[], Sections] | None = None,
    ) -> Frame:
        """The shortest frame that takes a client from `have` to the current version; `frame` has the other fields.

        `keyframe`: makes the sections of the current version; `first`: those of version 0, where they are short.
        """
        steps = self.since(have)
        if steps is not None and len(steps) <= 1:
            return self._step_frame(steps, frame)
        key = replace(frame, kind=Kind.KEYFRAME, round=self.version, base=NO_BASE, sections=keyframe())
        ways = [key] if steps is None else [self._step_frame(steps, frame), key]
        if steps is None and first and self.version == len(self.steps) > 0:
            ways.append(replace(key, sections=(*first(), *_as_sections(self.steps))))
        return min(ways, key=_section_bytes)

    def _step_frame(self, steps: tuple[bytes, ...], frame: Frame) -> Frame:
        base = self.version - len(steps)
        return replace(frame, kind=Kind.STEP, round=self.version, base=base, sections=_as_sections(steps))


def _as_sections(steps: tuple[bytes, ...]) -> Sections:
    return tuple((Section.STEP, step) for step in steps)


def _section_bytes(frame: Frame) -> int:
    return sum(len(data) + 6 for _, data in frame.sections)


@dataclass(frozen=True)
class Held(Generic[T]):
    """The client's end: the newest version decoded here, its value, and a CRC-32 of each step that led to it.

    A real client holds what it decoded. In a simulation all clients of a process share one: the same step is decoded
    once, and a step that was decoded before is checked against its checksum instead.
    """

    version: int
    value: T
    trail: dict[int, int] = field(default_factory=dict)


def receive(
    frame: Frame,
    held: Held[T] | None,
    have: int | None,
    keyframe: Callable[[Frame], T],
    step: Callable[[bytes, T, int], T],
    same: Callable[[T, T], bool],
) -> Held[T]:
    """What a client holds after a broadcast. `have`: the version this client had (of a simulated one, just a number).

    NeedKeyframe when a step frame builds on a later version; DecodeError when bytes contradict what was decoded.
    """
    if frame.kind == Kind.KEYFRAME:
        now = _from_keyframe(*unfold(frame), held, keyframe, step)
        if held is not None and held.version == now.version and not same(now.value, held.value):
            raise DecodeError(f"broadcast: the keyframe of version {frame.round} differs from the steps to it")
        return now
    if have is None or held is None or frame.base > min(have, held.version):
        raise NeedKeyframe(frame.base, have)
    steps = frame.all(Section.STEP)
    if frame.base + len(steps) != frame.round:
        raise DecodeError(f"broadcast: {len(steps)} steps from version {frame.base} do not lead to {frame.round}")
    return _apply_all(frame.base, steps, held, step)


def unfold(frame: Frame) -> tuple[Frame, list[bytes]]:
    """A keyframe without the steps behind it, of the version that it then holds, and those steps."""
    steps = frame.all(Section.STEP)
    if len(steps) > frame.round:
        raise DecodeError(f"keyframe: {len(steps)} steps lead to version {frame.round}")
    sections = tuple(section for section in frame.sections if section[0] != Section.STEP)
    return replace(frame, round=frame.round - len(steps), sections=sections), steps


def _from_keyframe(
    key: Frame,
    steps: list[bytes],
    held: Held[T] | None,
    keyframe: Callable[[Frame], T],
    step: Callable[[bytes, T, int], T],
) -> Held[T]:
    """What a keyframe and the steps behind it make; what was decoded here before is used again where it agrees."""
    trail = {version: crc32(payload) for version, payload in enumerate(steps, start=key.round + 1)}
    between = held is not None and key.round < held.version <= key.round + len(steps)
    if held is None or not between or not _led(held, trail):
        held = Held(key.round, keyframe(key))
    return _apply_all(key.round, steps, held, step)


def _led(held: Held[T], trail: dict[int, int]) -> bool:
    """Did these steps, and no others, lead to what is held?"""
    return all(held.trail.get(version) == crc for version, crc in trail.items() if version <= held.version)


def _apply_all(base: int, steps: list[bytes], held: Held[T], step: Callable[[bytes, T, int], T]) -> Held[T]:
    for version, payload in enumerate(steps, start=base + 1):
        held = _apply(version, payload, held, step)
    return held


def _apply(version: int, payload: bytes, held: Held[T], step: Callable[[bytes, T, int], T]) -> Held[T]:
    checksum = crc32(payload)
    if version <= held.version:
        if held.trail.get(version, checksum) != checksum:
            raise DecodeError(f"broadcast: step {version} is not the one decoded before")
        return held
    kept = dict(list(held.trail.items())[-MAX_STEPS:])
    return Held(version, step(payload, held.value, version), kept | {version: checksum})
