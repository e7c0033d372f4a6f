"""SSFL's settings, and what they say of its rounds."""

from __future__ import annotations

from dataclasses import dataclass

from thinwire.errors import ConfigError, one_of
from thinwire.methods.fedavg import Options

SELECTIONS = ("saliency", "random", "layerwise", "magnitude")


@dataclass(frozen=True)
class SsflOptions(Options):
    """SSFL's own settings and FedAvg's.

    density: fraction of the weights that the mask keeps. selection: by `saliency`, or a baseline: `random`,
    `layerwise` (random, the same density in every layer), `magnitude` (the largest initial weights).
    saliency_fraction: of the clients, asked in the saliency round. saliency_batches: minibatches of each. weighted:
    saliencies count by samples, else alike. saliency_bits: 4 to 8, or 32. floor: least density of every layer.
    reselect: rounds, counted from 1, that are saliency rounds again. warm_start: dense rounds before the selection.
    strict: a layer that vanishes is an error, not a warning.
    """

    density: float = 0.1
    selection: str = "saliency"
    saliency_fraction: float = 1.0
    saliency_batches: int = 1
    weighted: bool = True
    saliency_bits: int = 8
    floor: float = 0.0
    reselect: tuple[int, ...] = ()
    warm_start: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        first, by_saliency = self.warm_start + 1, self.selection == "saliency"
        for name, good, allowed in (
            ("density", 0 < self.density <= 1, "above 0, at most 1"),
            ("selection", self.selection in SELECTIONS, one_of(self.selection, SELECTIONS)),
            ("saliency_fraction", 0 < self.saliency_fraction <= 1, "above 0, at most 1"),
            ("saliency_batches", 1 <= self.saliency_batches < 1e6, "a number of minibatches from 1 on"),
            ("saliency_bits", self.saliency_bits in (4, 5, 6, 7, 8, 32), "4 to 8, or 32 for float32"),
            ("floor", 0 <= self.floor <= self.density, "0 (off) to the density"),
            ("warm_start", 0 <= self.warm_start < 1e6, "a number of rounds from 0 on"),
            ("reselect", all(type(r) is int and r > first for r in self.reselect), f"rounds after round {first}"),
            ("reselect", by_saliency or not self.reselect, "none: only saliencies are worth another look"),
        ):
            if not good:
                raise ConfigError(f"method.{name}", getattr(self, name), allowed)

    def asks(self, version: int) -> bool:
        """Do clients of this version answer with saliencies?"""
        return self.selection == "saliency" and (version == self.warm_start or version + 1 in self.reselect)

    def comes(self, version: int) -> bool:
        """Does a version have another mask than the one before?"""
        return self.asks(version - 1) if self.selection == "saliency" else version == self.warm_start

    def tells(self, version: int) -> bool:
        """Does a keyframe of this version hold the mask?"""
        if self.selection == "saliency":
            return version > self.warm_start
        return self.selection == "magnitude" and 0 < self.warm_start <= version
