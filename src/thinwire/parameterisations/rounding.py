"""From probabilities to one mask: which binary network stands best for the mean network W∘θ?"""

from __future__ import annotations

from math import pi

import numpy as np

from thinwire.layout import Entry, Layout

ROUNDINGS = ("diffusion", "threshold", "sample")
SPREAD = pi / 2 - 1  # variance / mean² of a unit's inputs, taken as half-normal (what a ReLU leaves of a Gaussian)


def round_mask(
    theta: np.ndarray, weights: np.ndarray, layout: Layout, how: str, draw: np.random.Generator
) -> np.ndarray:
    """A mask (d,) uint8 for probabilities (d,) over frozen weights (d,).

    `threshold`: θ > ½. `sample`: m ~ Bernoulli(θ). `diffusion`: input by input, each unit's m is the one that keeps
    E[(Σ w (m − θ) x)²] ∝ (Σ w (m − θ))² + SPREAD · Σ w² (m − θ)² least: a threshold lets the first term drift, a
    sample pays in the second. Needs no data and sends nothing. Biases are thresholded.
    """
    if how == "sample":
        return (draw.random(theta.size, dtype=np.float32) < theta).astype(np.uint8)
    mask = (theta > 0.5).astype(np.uint8)
    if how == "diffusion":
        for entry in layout:
            if len(entry.shape) >= 2 and entry.size:
                mask[entry.slice] = _diffuse(theta[entry.slice], weights[entry.slice], entry)
    return mask


def _diffuse(theta: np.ndarray, weights: np.ndarray, entry: Entry) -> np.ndarray:
    """Error diffusion over the inputs of all units of one layer at once.  # (size,) -> (size,) uint8."""
    theta, weights = (array.reshape(entry.shape[0], -1).T.astype(np.float64) for array in (theta, weights))
    keep, drop = weights * (1 - theta), -weights * theta  # error made by either choice (inputs, units)
    bias = SPREAD * (keep**2 - drop**2)
    mask, error = np.zeros(theta.shape, dtype=np.uint8), np.zeros(entry.shape[0])  # error: (units,)
    for row in range(len(theta)):
        kept = (error + keep[row]) ** 2 + bias[row] < (error + drop[row]) ** 2
        mask[row] = kept
        error += np.where(kept, keep[row], drop[row])
    return mask.T.ravel()
