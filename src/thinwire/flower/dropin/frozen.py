"""Frozen arrays: what no node has changed is not sent again, though the strategy's sums have rounded it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from thinwire.flower.dropin.buffers import Name
from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.manifest import Manifest
from thinwire.flower.dropin.records import Arrays


def settled(
    model: Global, names: frozenset[Name], replies: int, manifest: Manifest, arrays: Arrays
) -> tuple[Manifest, Arrays]:
    """A strategy's arrays, with those of the last model in the place of what is such an array but for rounding.

    The mean of equal arrays is not quite the same array, and that of whole numbers is float64. names: of the arrays
    that all replies of the last round have left as they were.
    """
    items, kept = list(manifest.items), list(arrays)
    for number, item in enumerate(manifest.items):
        before = model.terms.manifest.by_name.get(item.name)
        if item.name in names and before is not None and _rounded(model.arrays[before], arrays[number], replies):
            items[number] = replace(item, dtype=model.terms.manifest.items[before].dtype)
            kept[number] = model.arrays[before]
    return Manifest(manifest.records, tuple(items)), kept


def _rounded(before: np.ndarray, now: np.ndarray, replies: int) -> bool:
    """Is an array another one but for the rounding of a mean of so many replies?"""
    if before.shape != now.shape:
        return False
    if now.dtype.kind != "f" or before.dtype.kind == "c":
        return before.dtype == now.dtype and before.tobytes() == now.tobytes()
    size = max(np.finfo(kind).eps for kind in (now.dtype, before.dtype) if kind.kind == "f")
    with np.errstate(all="ignore"):
        near = np.abs(np.subtract(now, before, dtype=np.float64)) <= min(replies + 2, 8) * float(size) * np.abs(before)
    return bool((near | (now == before)).all())
