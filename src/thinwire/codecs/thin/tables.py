"""Integer tables of the logistic mixer, computed in decimal arithmetic, so that every machine has the same ones.

A probability of a set bit is a whole number of 2¹⁶. In the logistic domain it is a whole number of 1/256: `STRETCH`
gives about 256 · ln(p / (1 − p)) for the upper 12 bits of p, `SQUASH` the way back for −2047 … 2047. Both saturate.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

LARGEST = 2047  # of the logistic domain, in 1/256
LEAST = 16  # of 2¹⁶: no bit is surer than that
HALF = 1 << 15


def _squash() -> np.ndarray:
    """round(2¹⁶ / (1 + e^(−x / 256))) for x = −2047 … 2047, at least LEAST away from 0 and 2¹⁶.  # (4095,) int32."""
    with localcontext(prec=30):
        unit = (Decimal(-1) / 256).exp()
        powers = [Decimal(1)]
        for _ in range(LARGEST):
            powers.append(powers[-1] * unit)
        upper = [int((65536 / (1 + power)).to_integral_value()) for power in powers]
    values = [65536 - p for p in upper[:0:-1]] + upper
    return np.clip(np.array(values, dtype=np.int32), LEAST, 65536 - LEAST)


def _stretch(squash: np.ndarray) -> np.ndarray:
    """The x whose squashed value lies nearest to the middle of each sixteenth of 2⁸, by integers.  # (4096,) int32."""
    middles = 16 * np.arange(4096, dtype=np.int32) + 8
    after = np.clip(np.searchsorted(squash, middles), 1, squash.size - 1)
    nearer = after - (middles - squash[after - 1] <= squash[after] - middles)
    return (nearer - LARGEST).astype(np.int32)


def _costs() -> np.ndarray:
    """−log₂ of the middle of each of 4096 parts of (0, 1), for the encoder's choices only.  # (4096,) float32."""
    return -np.log2((np.arange(4096) + 0.5) / 4096).astype(np.float32)


SQUASH = _squash()
STRETCH = _stretch(SQUASH)
COSTS = _costs()
RATES = (131072 // (2 * np.arange(256) + 3)).astype(np.int32)  # of 2¹⁶: 1 / (n + 3/2) after n bits of a context
