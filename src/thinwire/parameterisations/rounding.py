"""From probabilities to one mask: which binary network stands best for the mean network W∘θ?"""

from __future__ import annotations

import numpy as np

from thinwire.layout import Entry, Layout

ROUNDINGS = ("diffusion", "threshold", "sample")


def round_mask(
    theta: np.ndarray, weights: np.ndarray, layout: Layout, how: str, draw: np.random.Generator
) -> np.ndarray:
    """A mask (d,) uint8 for probabilities (d,) over frozen weights (d,).

    `threshold`: θ > ½. `sample`: m ~ Bernoulli(θ). `diffusion`: threshold that carries its error along each unit's
    inputs, so that every partial sum Σ w (m − θ) of a unit stays within ± max |w| / 2; a plain threshold lets it drift,
    and a sample lets it diffuse. Needs no data. Biases are thresholded.
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
    mask, error = np.zeros(theta.shape, dtype=np.uint8), np.zeros(entry.shape[0])  # (inputs, units), (units,)
    for row, (probability, weight) in enumerate(zip(theta, weights, strict=True)):
        wanted = error - weight * probability  # the partial sum if this weight is dropped
        mask[row] = np.abs(wanted + weight) < np.abs(wanted)
        error = wanted + weight * mask[row]
    return mask.T.ravel()
