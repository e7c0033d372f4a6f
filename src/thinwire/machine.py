"""What differs between machines: processor cores, memory, and how processes start."""

from __future__ import annotations

import os
import sys
from multiprocessing import get_all_start_methods

from thinwire.errors import ConfigError

VARIABLE = "THINWIRE_START_METHOD"


def cores() -> int:
    """How many cores this process may use: those of its affinity where the system has one, else the machine's."""
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = getattr(os, "process_cpu_count", os.cpu_count)  # Python 3.13 has it
    return count() or 1


def memory_bytes() -> int:
    """The machine's memory; 16 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**34


def start_method() -> str:
    """How worker processes start: fork on Linux, spawn elsewhere, or what THINWIRE_START_METHOD says.

    A forked process inherits all that its parent has, so it starts at once; on macOS the system's own libraries do
    not survive a fork, and Windows has none. ConfigError when this system does not have the method.
    """
    asked, known = os.environ.get(VARIABLE), get_all_start_methods()
    if asked and asked not in known:
        raise ConfigError(VARIABLE, asked, f"one of {', '.join(sorted(known))}")
    return asked or ("fork" if sys.platform == "linux" else "spawn")
