"""Split: which arrays are coded, as one float32 vector under a layout, and which travel as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np

from thinwire.errors import TrainingError
from thinwire.flower.dropin.manifest import Item, Manifest
from thinwire.flower.dropin.records import Arrays
from thinwire.layout import Layout


@dataclass(frozen=True)
class Split:
    """The arrays numbered in `coded` make one vector (n,) float32; the rest is raw.

    The vector holds the arrays themselves or, given a base (an array for each coded one), what they are more.
    """

    manifest: Manifest
    coded: tuple[int, ...]

    @cached_property
    def layout(self) -> Layout:
        """Layout of the vector. Numbers in front, or a/b of record c and b of record c/a would share a name."""
        items = (self.manifest.items[number] for number in self.coded)
        return Layout.of({f"{place} {item.record}/{item.key}": item.shape for place, item in enumerate(items)})

    @cached_property
    def rest(self) -> tuple[int, ...]:
        """Numbers of the arrays that travel raw."""
        return tuple(sorted(set(range(len(self.manifest.items))) - set(self.coded)))

    @cached_property
    def rest_items(self) -> list[Item]:
        """The arrays that travel raw."""
        return [self.manifest.items[number] for number in self.rest]

    def vector(self, arrays: Arrays, base: Arrays | None = None) -> np.ndarray:
        """The coded arrays, less the base.  # (n,) float32"""
        flat = np.empty(self.layout.size, dtype=np.float32)
        with np.errstate(all="ignore"):
            for number, entry, before in zip(self.coded, self.layout, _or_zeros(base), strict=False):
                flat[entry.slice] = np.subtract(arrays[number], before, dtype=np.float64).ravel()
        return flat

    def check(self, where: str, flat: np.ndarray, arrays: Arrays) -> None:
        """TrainingError names the first array whose part of a vector is not finite."""
        for number, entry in zip(self.coded, self.layout, strict=True):
            if not np.isfinite(flat[entry.slice]).all():
                finite = np.isfinite(arrays[number]).all()
                what = "changes by more than float32 holds" if finite else "holds NaN or infinite entries"
                raise TrainingError(f"{where}: {self.manifest.items[number].label} {what}")

    def above(self, arrays: Arrays, before: Arrays) -> list[bool]:
        """Which coded arrays are nowhere below 0, nor were before. before: an array for each coded one, any shape."""
        pairs = zip((arrays[number] for number in self.coded), before, strict=True)
        return [now.size > 0 and bool((now >= 0).all() and (was >= 0).all()) for now, was in pairs]

    def join(
        self, vector: np.ndarray, rest: Arrays, base: Arrays | None = None, floor: Sequence[bool] | None = None
    ) -> list[np.ndarray]:
        """All arrays, in the manifest's dtypes; those with a floor are cut off at 0."""
        items, arrays = self.manifest.items, dict(zip(self.rest, rest, strict=True))
        floors = floor or [False] * len(self.coded)
        with np.errstate(all="ignore"):
            for number, entry, before, above in zip(self.coded, self.layout, _or_zeros(base), floors, strict=False):
                wide = vector[entry.slice].astype(np.float64).reshape(entry.shape) + before
                arrays[number] = (np.maximum(wide, 0) if above else wide).astype(items[number].dtype)
        return [arrays[number] for number in range(len(items))]


def _or_zeros(base: Arrays | None) -> Iterable[np.ndarray | float]:
    return repeat(0.0) if base is None else base


def downward(manifest: Manifest, exact: frozenset[int] = frozenset()) -> Split:
    """What a coded broadcast codes: all weights, real numbers with at least one axis.

    Scalars are counters more often than weights (BatchNorm's), and steps of 1 would drown steps of 0.001.
    """
    coded = (number for number, item in enumerate(manifest.items) if _fits(item) and number not in exact)
    return Split(manifest, tuple(coded))


def upward(received: Manifest, reply: Manifest, exact: frozenset[int] = frozenset()) -> tuple[Split, tuple[int, ...]]:
    """What a reply codes, against which arrays received: weights of one name and shape."""
    weights = set(downward(received, exact).coded)
    pairs = [
        (number, received.by_name[item.name])
        for number, item in enumerate(reply.items)
        if _fits(item) and _same_shape(received, item) and received.by_name[item.name] in weights
    ]
    return Split(reply, tuple(number for number, _ in pairs)), tuple(base for _, base in pairs)


def twins(received: Split, reply: Split) -> list[int | None]:
    """For each raw array of a reply the number of the one received, raw too, of its name and shape; None: none."""
    raw, manifest = set(received.rest), received.manifest
    return [
        manifest.by_name[item.name] if _same_shape(manifest, item) and manifest.by_name[item.name] in raw else None
        for item in reply.rest_items
    ]


def _same_shape(manifest: Manifest, item: Item) -> bool:
    number = manifest.by_name.get(item.name)
    return number is not None and manifest.items[number].shape == item.shape


def _fits(item: Item) -> bool:
    return item.floating and item.shape != ()
