"""How far a decoded update lies from the one that was encoded, and whether that is what its codec was asked for."""

from __future__ import annotations

import numpy as np

from thinwire.codecs.base import Codec, Context


def nmse(x: np.ndarray, decoded: np.ndarray) -> float:
    """‖x − x̂‖² / ‖x‖² in float64: 0 is exact, 1 is as far off as sending nothing.  # (n,), (n,) -> float

    Entries of any finite size, from subnormal numbers to the largest float32. An x of zeros has 0 where x̂ is exact,
    else infinity. NaN or infinite entries give NaN.

    >>> nmse(np.array([3.0, 4.0], np.float32), np.array([3.0, 0.0], np.float32))
    0.64
    """
    wide, off = x.astype(np.float64), 0.0
    energy = float(np.sum(wide * wide))
    with np.errstate(invalid="ignore", over="ignore"):
        wide -= decoded
        off = float(np.sum(wide * wide))
    if energy == 0:
        return 0.0 if off == 0 else np.inf
    return off / energy


def missed(codec: Codec, nmse: float, payload_bytes: int, n: int) -> str:
    """Why a payload for n entries misses its codec's target, one line; empty where it meets it or has none.

    nmse: of what the payload decodes to. A codec with a target has a method `missed` of the last three arguments.
    """
    says = getattr(codec, "missed", None)
    return says(nmse, payload_bytes, n) if says else ""


def fidelity(
    codec: Codec, x: np.ndarray, payload: bytes, context: Context, decoded: np.ndarray | None = None
) -> dict[str, float]:
    """What an update lost on its way, as a client's metrics: `nmse`, and `missed` (0 or 1) for a codec with a target.

    decoded: what the payload decodes to, where that is known already. A codec with a true `exact` costs nothing.
    """
    if getattr(codec, "exact", False):
        return {"nmse": 0.0}
    back = codec.decode(payload, context) if decoded is None else decoded
    found = {"nmse": nmse(x, back)}
    if hasattr(codec, "missed"):
        found["missed"] = float(bool(missed(codec, found["nmse"], len(payload), x.size)))
    return found
