"""What a node's mod keeps in `context.state` between the messages of one run.

It dies with the SuperNode's process, like all of Flower's state. Then a residual is lost once, and a node of a coded
downlink asks for a keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.supercore import log

from thinwire.errors import DecodeError, line
from thinwire.flower.dropin.downlink import Copy
from thinwire.flower.dropin.terms import read_terms
from thinwire.flower.dropin.uplink import Residual
from thinwire.flower.dropin.words import NEVER
from thinwire.versions import Held

ARRAYS, WORDS = "thinwire-arrays", "thinwire-words"


@dataclass(frozen=True, eq=False)
class Memory:
    """`pending` becomes `residual` only once the server names its round as accepted. `held` is x̂ where steps come."""

    run: int | None = None
    residual: Residual | None = None
    pending: Residual | None = None
    pending_round: int = NEVER
    held: Held[Copy] | None = None


def settle(memory: Memory, run: int, accepted: int) -> Memory:
    """The memory with what is pending made good if the server accepted it, dropped if not; empty in another run."""
    if memory.run != run:
        return Memory(run)
    good = memory.pending_round != NEVER and memory.pending_round == accepted
    return replace(memory, residual=memory.pending if good else memory.residual, pending=None, pending_round=NEVER)


def save(context: Context, memory: Memory) -> None:
    """Keep a memory; nothing is left behind of an empty one."""
    arrays: dict[str, np.ndarray] = {}
    words: dict[str, Any] = {}
    for name in ("residual", "pending"):
        if (residual := getattr(memory, name)) is not None:
            arrays[name], words[name] = residual.values, residual.layout
    if memory.held:
        copy = memory.held.value
        arrays["held"], words["terms"], words["version"] = copy.sent, copy.terms.data, memory.held.version
        arrays |= {f"held-{place}": array for place, array in enumerate(copy.rest)}
    context.state.pop(ARRAYS, None)
    context.state.pop(WORDS, None)
    if arrays:
        context.state[ARRAYS] = ArrayRecord({name: Array(values) for name, values in arrays.items()})
        context.state[WORDS] = ConfigRecord({**words, "run": memory.run or 0, "pending-round": memory.pending_round})


def load(context: Context) -> Memory:
    """Inverse of `save`; empty where there is nothing, or not what was kept: a node forgets, it does not fail."""
    if ARRAYS not in context.state or WORDS not in context.state:
        return Memory()
    try:
        return _load(context)
    except (DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        log(WARNING, "thinwire: %s in context.state is not what was kept there (%s); forgotten", ARRAYS, line(error))
        return Memory()


def _load(context: Context) -> Memory:
    words: dict[str, Any] = dict(context.state.config_records[WORDS])
    arrays = {name: array.numpy() for name, array in context.state.array_records[ARRAYS].items()}
    residuals = {
        name: Residual(words[name], _vector(arrays[name])) for name in ("residual", "pending") if name in arrays
    }
    held = Held(words["version"], _copy(words["terms"], arrays)) if "held" in arrays else None
    return Memory(words["run"], pending_round=words["pending-round"], held=held, **residuals)


def _copy(data: bytes, arrays: dict[str, np.ndarray]) -> Copy:
    terms = read_terms(data)
    sent = _vector(arrays["held"], terms.split.layout.size)
    return Copy(terms, sent, [arrays[f"held-{place}"] for place in range(len(terms.split.rest))])


def _vector(values: np.ndarray, size: int | None = None) -> np.ndarray:
    """What must be a vector of float32, of a size if one is known.  # (n,)"""
    if values.dtype != np.float32 or values.shape != (values.size if size is None else size,):
        raise ValueError(f"{values.dtype} {values.shape} is not a vector of {'float32' if size is None else size}")
    return values
