"""A campaign against one target: mutants, and mutants of those mutants that reached new lines. Every decode is watched.

Seconds are those of the processor, for other processes are not the decoder's fault. Bytes are those that Python and
numpy allocate, and by how much the process grew, which is all that is seen of compiled loops.

Lines of thinwire's own Python are seen with `sys.settrace`, for a quarter of the mutants, because it takes its time;
loops that numba compiles are not seen. A mutant that reaches a line that none did before joins the samples that the
next ones are made of.
"""

from __future__ import annotations

import re
import resource
import sys
import tracemalloc
from collections import Counter
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from types import CodeType, FrameType
from typing import Any

import numpy as np

import thinwire
from benchmarks.fuzz.targets import REFUSALS, Target

SECONDS = 1.0
PEAK_BYTES = 64 * 2**20  # and 16 times the layout's
MOST_SAMPLES = 500
TRACED = 0.25  # of the mutants
OURS = thinwire.__path__[0]


@dataclass
class Found:
    """What a campaign has seen. refusals: by reason, numbers left out. escapes: (what went wrong, the bytes in hex)."""

    target: str
    mutations: int = 0
    accepted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    lines: int = 0
    slowest_seconds: float = 0.0
    peak_bytes: int = 0
    grown_bytes: int = 0
    escapes: list[tuple[str, str]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "refusals": dict(self.refusals)}


class Lines:
    """The lines of thinwire that were ever reached inside `with`; `new`: was one reached for the first time?"""

    def __init__(self) -> None:
        self.seen: set[tuple[CodeType, int]] = set()
        self.before = 0
        self.ours: dict[CodeType, bool] = {}

    def __enter__(self) -> Lines:
        self.before = len(self.seen)
        sys.settrace(self._call)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    @property
    def new(self) -> bool:
        """Since the last `with`."""
        return len(self.seen) > self.before

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if code not in self.ours:
            self.ours[code] = code.co_filename.startswith(OURS)
        return self._line if self.ours[code] else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.seen.add((frame.f_code, frame.f_lineno))
        return self._line


def play(target: Target, count: int, seed: int) -> Found:
    """`count` mutants of a target's samples."""
    found, lines, draw = Found(target.name), Lines(), np.random.default_rng(seed)
    samples = list(target.samples)
    for sample in samples:  # compiled, and their lines known, before anything is timed
        with lines, suppress(*REFUSALS):
            target.read(sample)
    tracemalloc.start()
    for index in range(count):
        data, traced = target.mutate(samples, index, draw), draw.random() < TRACED
        _try(target, data, found, lines if traced else nullcontext())
        if traced and lines.new and data and len(samples) < MOST_SAMPLES:
            samples.append(data)
    tracemalloc.stop()
    found.mutations, found.kept, found.lines = count, len(samples) - len(target.samples), len(lines.seen)
    return found


def _try(target: Target, data: bytes, found: Found, seeing: AbstractContextManager[Any]) -> None:
    """One decode. What it must not do is an escape."""
    tracemalloc.clear_traces()
    before = _resident()
    began = process_time()
    wrong = ""
    try:
        with seeing:
            made = target.read(data)
        seconds, (_, peak) = process_time() - began, tracemalloc.get_traced_memory()
        found.accepted += 1
        wrong = "" if target.holds(data, made) else "accepted, and is not what it must be"
    except REFUSALS as error:
        seconds, (_, peak) = process_time() - began, tracemalloc.get_traced_memory()
        found.refusals[_reason(error)] += 1
    except Exception as error:
        seconds, (_, peak) = process_time() - began, tracemalloc.get_traced_memory()
        wrong = f"{type(error).__name__}: {error}"
    grown = _resident() - before
    bound = PEAK_BYTES + 16 * target.layout_bytes
    if seconds > SECONDS or grown > bound:  # the first call may have loaded what is compiled
        seconds, grown = _again(target, data)
    for amount, most, what in ((seconds, SECONDS, "seconds"), (peak, bound, "bytes"), (grown, bound, "bytes grown")):
        if amount > most:
            wrong = wrong or f"{amount} {what}"
    found.slowest_seconds = max(found.slowest_seconds, seconds)
    found.peak_bytes, found.grown_bytes = max(found.peak_bytes, peak), max(found.grown_bytes, grown)
    if wrong:
        found.escapes.append((wrong, data.hex()))


def _again(target: Target, data: bytes) -> tuple[float, int]:
    """Seconds and growth of one more decode, the growth from where the process stands now."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most that it ever had
    before, began = _resident(), process_time()
    with suppress(Exception):
        target.read(data)
    return process_time() - began, _resident() - before


def _resident() -> int:
    """The most bytes that this process had in memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reason(error: Exception) -> str:
    """What a refusal says, its numbers left out."""
    text = re.sub(r"(?<!\w)'[^']*'|(?<!\w)b'.*?'", "…", str(error))
    return re.sub(r"-?\d[\d.e+,]*|\bnan\b|\binf\b", "#", text)[:80]
