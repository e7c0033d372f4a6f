"""When how many bytes passed: totals, and the seconds in which something moved."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

COALESCE_SECONDS = 0.002
GAP_SECONDS = 0.05


@dataclass(frozen=True)
class Span:
    """Bytes that arrived between two times (seconds since the epoch, as other processes' logs have it)."""

    start: float
    end: float
    count: int


@dataclass(frozen=True)
class Traffic:
    """Bytes that passed, and the seconds in which they did: pauses longer than the gap are left out."""

    bytes: int
    seconds: float
    first: float | None = None
    last: float | None = None


@dataclass
class Timeline:
    """The bytes of one direction. Arrivals close to each other share a span, but never across a mark."""

    spans: list[Span] = field(default_factory=list)
    marked: float = -inf
    marked_spans: int = 0

    def add(self, count: int, now: float | None = None) -> None:
        """Note the arrival of so many bytes."""
        now = time.time() if now is None else now
        last = self.spans[-1] if len(self.spans) > self.marked_spans else None
        if last is not None and now - last.end <= COALESCE_SECONDS:
            self.spans[-1] = Span(last.start, now, last.count + count)
        else:
            self.spans.append(Span(now, now, count))

    def mark(self) -> None:
        """From here `since_mark` counts."""
        self.marked_spans = len(self.spans)

    def total(self, gap: float = GAP_SECONDS) -> Traffic:
        """All that passed."""
        return traffic(self.spans, gap)

    def since_mark(self, gap: float = GAP_SECONDS) -> Traffic:
        """What passed since the last mark."""
        return traffic(self.spans[self.marked_spans :], gap)

    def between(self, start: float, end: float = inf, gap: float = GAP_SECONDS) -> Traffic:
        """What began to pass at a time from `start` on and before `end`."""
        return traffic([span for span in self.spans if start <= span.start < end], gap)


def traffic(spans: Iterable[Span], gap: float = GAP_SECONDS) -> Traffic:
    """Bytes, and the length of the union of the spans after pauses of up to `gap` seconds were filled."""
    count, seconds, first, last = 0, 0.0, None, None
    for span in spans:
        count += span.count
        first = span.start if first is None else first
        pause = inf if last is None else span.start - last
        seconds += span.end - span.start + (pause if pause <= gap else 0.0)
        last = span.end
    return Traffic(count, seconds, first, last)
