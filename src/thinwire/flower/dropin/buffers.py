"""Buffers: which arrays of a message are no weights. They travel exactly, whatever the codec is.

A message holds names, dtypes and numbers, never the word buffer. So an array is one if it holds whole numbers, if its
name is one that only buffers have, if the user's patterns name it, or if it holds an infinity (a causal mask). The
server decides, once for a run, and the terms tell the nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np

from thinwire.errors import ConfigError
from thinwire.flower.dropin.manifest import Item, Manifest
from thinwire.flower.dropin.records import Arrays

VARIANCES = frozenset({"running_var", "moving_variance", "moving_var"})
BUFFERS = VARIANCES | {
    "running_mean", "num_batches_tracked", "moving_mean",  # batch and instance normalisation in torch and Keras
    "_u", "_v",  # torch.nn.utils.parametrizations.spectral_norm
    "position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "masked_bias",  # transformers
    "attn_mask", "relative_position_index", "relative_coords_table",  # Swin
}  # fmt: skip
Name = tuple[str, str]  # record and key


def last_word(key: str) -> str:
    """What a tensor is called in its layer: after the last dot or slash, without TensorFlow's output number."""
    return re.split(r"[./]", key)[-1].split(":")[0]


def checked_patterns(where: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns; ConfigError unless they are a list of texts."""
    if not isinstance(patterns, list | tuple) or not all(isinstance(p, str) and p for p in patterns):
        raise ConfigError(where, patterns, 'a list of names or patterns, such as ["*.centers", "4"]')
    return tuple(patterns)


def matches(item: Item, pattern: str) -> bool:
    """Does a pattern name an array, by its key or by record/key?"""
    return any(fnmatchcase(name, pattern) for name in (item.key, f"{item.record}/{item.key}"))


def check_matches(patterns: Iterable[str], manifest: Manifest) -> None:
    """ConfigError for a pattern that names no array."""
    for pattern in patterns:
        if not any(matches(item, pattern) for item in manifest.items):
            some = ", ".join(item.key for item in manifest.items[:3])
            raise ConfigError("exact", pattern, f"names one of the {len(manifest.items)} arrays ({some}, ...)")


def buffers(manifest: Manifest, arrays: Arrays, patterns: Sequence[str]) -> Iterator[Name]:
    """Names of the arrays that are no weights."""
    for item, array in zip(manifest.items, arrays, strict=True):
        named = last_word(item.key) in BUFFERS or any(matches(item, pattern) for pattern in patterns)
        if named or array.dtype.kind in "biu" or np.isinf(array).any():
            yield item.name


def fault(item: Item, array: np.ndarray, before: np.ndarray | None) -> str | None:
    """What is wrong with the numbers of an array, which was another before; None if nothing is.

    An infinity may stay where one was: a mask's. A variance may stay below 0 where it was: that is no node's doing.
    """
    bad = ~np.isfinite(array)
    if before is not None and before.shape != array.shape:
        before = None
    if bad.any() and (before is None or np.isnan(array).any() or not np.array_equal(array[bad], before[bad])):
        return f"{item.label} holds NaN or infinite entries"
    if _below_zero(item, array) and not (before is not None and _below_zero(item, before)):
        return f"{item.label} is a variance and holds entries below 0"
    return None


def suspicion(item: Item, array: np.ndarray) -> str | None:
    """What the user should know of an array that a strategy gives; None if nothing."""
    if np.isnan(array).any():
        return f"{item.label} holds NaN"
    if _below_zero(item, array):
        return f"{item.label} is a variance and below 0: the strategy treats it as weights; give the model GroupNorm"
    return None


def _below_zero(item: Item, array: np.ndarray) -> bool:
    return last_word(item.key) in VARIANCES and array.dtype.kind == "f" and bool((array < 0).any())
