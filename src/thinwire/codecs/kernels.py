"""Compiled loops, and where the machine code is kept from one process to the next.

numba keeps it beside the source, else in the user's cache folder, and refuses to compile where neither can be written:
in a read-only container, for example. Then it goes into a folder of the user's own under the temporary one. It is
code that will be executed, so a folder that anybody else could have written to is none; then every process compiles.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from tempfile import gettempdir
from typing import Any

import numba
from numba.core import config

NOWHERE = "compiled code cannot be kept, every process compiles anew: set NUMBA_CACHE_DIR to a folder to write to"


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As numba's own; with `cache`, the code is kept where that is possible."""

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError:  # numba's own for a function that it has no folder for
            if not options.get("cache"):
                raise
            return _kept_elsewhere(function, options)

    return compiled


def _kept_elsewhere(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    folder = spare_folder()
    if folder is None:
        return numba.njit(**{**options, "cache": False})(function)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)  # looked at when a function is decorated, and then only
    try:
        return numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before


@lru_cache(1)
def spare_folder() -> Path | None:
    """A folder under the temporary one that is this user's alone; None, with one warning, where there is none."""
    user = os.getuid() if hasattr(os, "getuid") else None  # Windows has a temporary folder for each user
    try:
        folder = Path(gettempdir()) / ("thinwire-kernels" if user is None else f"thinwire-kernels-{user}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if _private(folder.lstat(), user) and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    warnings.warn(NOWHERE, stacklevel=2)
    return None


def _private(found: os.stat_result, user: int | None) -> bool:
    """Is it a folder, no link to one, that nobody but the user can come into?"""
    own = user is None or (found.st_uid == user and not found.st_mode & 0o077)
    return S_ISDIR(found.st_mode) and own
