"""How far a reply is from what its node was sent."""

from __future__ import annotations

import numpy as np

from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.uplink import Reply


def update_norm(model: Global, reply: Reply) -> float:
    """Euclidean norm of what a reply changes; an array of a new name or shape is a change as a whole.

    Buffers do not count. Whole numbers count where they stand for real ones.
    """
    squares, terms = 0.0, model.terms
    for item, array in zip(reply.manifest.items, reply.arrays, strict=True):
        number = terms.manifest.by_name.get(item.name)
        before = np.zeros((), dtype=bool) if number is None else model.arrays[number]
        if number in terms.exact and before.shape == array.shape:
            continue
        if {array.dtype.kind, before.dtype.kind} & set("fc"):
            squares += _square(array, before)
    return float(np.sqrt(squares))


def _square(array: np.ndarray, before: np.ndarray) -> float:
    change = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    with np.errstate(over="ignore"):
        if before.shape == array.shape:
            change = change - before
        return float((change * change.conj()).real.sum())
