"""How far a reply is from what its node was sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.flower.dropin.buffers import Name
from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.uplink import Reply

LARGEST = 1e18  # change of one entry: the square is far from float32's end, and so is a sum of squares over a cohort


@dataclass(frozen=True)
class Limit:
    """The largest norm that an update may have, and what to say to those who exceed it."""

    norm: float
    hint: str = ""


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


def leap(model: Global, reply: Reply) -> str | None:
    """Which array holds an entry that no training changes so much; None if there is none.

    It is finite, but a mean of two or a second moment is not, and no node can train from what it leaves behind.
    """
    for item, array in zip(reply.manifest.items, reply.arrays, strict=True):
        if array.dtype.kind not in "fc" or array.dtype == np.float16:  # whose numbers end before
            continue
        with np.errstate(all="ignore"):
            if _reaches(array) and (change := _most(array, _before(model, item.name, array))) > LARGEST:
                return f"{item.label} changes by {change:.3g}, at most {LARGEST:g} allowed"
    return None


def _reaches(array: np.ndarray) -> bool:
    """Is any entry beyond LARGEST? Without a copy where it can be."""
    parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
    return any(part.max(initial=0) > LARGEST or part.min(initial=0) < -LARGEST for part in parts)


def _before(model: Global, name: Name, array: np.ndarray) -> np.ndarray:
    number = model.terms.manifest.by_name.get(name)
    same = number is not None and model.arrays[number].shape == array.shape
    return model.arrays[number] if same and number is not None else np.zeros(array.shape)


def _most(array: np.ndarray, before: np.ndarray) -> float:
    """The largest change of the entries beyond LARGEST; an infinity that stays, a mask's, is none."""
    far = (np.abs(array) > LARGEST) & (array != before)
    return float(np.max(np.abs(array[far] - before[far]), initial=0))
