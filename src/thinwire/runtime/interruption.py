"""Ctrl-C: the first one lets the round under way come to its end, a second one stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from types import FrameType

STDERR = 2
ENDING = b"\nending after the round under way; Ctrl-C again stops at once\n"


@dataclass
class Interruption:
    """Was Ctrl-C pressed?"""

    asked: bool = False


@contextmanager
def heeded() -> Iterator[Interruption]:
    """Inside, the first Ctrl-C only sets `asked`; KeyboardInterrupt comes at the end, or at once by a second one.

    Where somebody else handles SIGINT, or ignores it, and in threads other than the main one nothing changes.
    """
    interruption = Interruption()

    def heed(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interruption.asked = True
        os.write(STDERR, ENDING)  # print may be in the middle of a line of its own

    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return
    signal.signal(signal.SIGINT, heed)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interruption.asked:
        raise KeyboardInterrupt


@contextmanager
def ignored() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C from their first moment on, while they still import; so does this one.

    Nothing changes in threads other than the main one, and where the handler is not Python's own to set again.
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
