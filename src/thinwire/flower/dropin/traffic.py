"""What crosses between a strategy and its nodes, in bytes, and who was dropped."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from flwr.app import MetricRecord

from thinwire.codecs import Codec, Thin
from thinwire.codecs.thin.codec import NMSE
from thinwire.errors import shown

SLACK = 1.05  # a search may end two percent beside its target, and the error travels in two bytes


@dataclass(frozen=True)
class Traffic:
    """Sums over messages: payload bytes, and the bytes of the arrays that they stand for.

    Payload is frames and, down, the few words beside each. Flower's own cost of a message comes on top. coded, error:
    number of coded updates, and the sum of their NMSE ‖x − x̂‖² / ‖x‖², as the nodes say.
    """

    up_bytes: int = 0
    up_dense_bytes: int = 0
    down_bytes: int = 0
    down_dense_bytes: int = 0
    coded: int = 0
    error: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean_error(self) -> float:
        """Of the coded updates; 0 where nothing was coded."""
        return self.error / self.coded if self.coded else 0.0

    def beside(self, metrics: MetricRecord | None) -> MetricRecord:
        """Aggregated metrics with the sums beside them, and the mean error where updates were coded."""
        names = "up", "up-dense", "down", "down-dense"
        sums = {f"thinwire-{name}-bytes": count for name, count in zip(names, astuple(self), strict=False)}
        error = {"thinwire-up-nmse": self.mean_error} if self.coded else {}
        return MetricRecord({**(metrics or {}), **sums, **error})

    def __str__(self) -> str:
        lost = f", {100 * self.mean_error:.3g} % of the energy lost" if self.coded else ""
        return (
            f"{self.up_bytes:,} bytes up for {self.up_dense_bytes:,}{lost}, "
            f"{self.down_bytes:,} down for {self.down_dense_bytes:,}"
        )


@dataclass(frozen=True)
class Dropped:
    """A reply that was not handed to the strategy; the reason in at most 200 characters that print."""

    round: int
    node: int
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", shown(self.reason))

    def __str__(self) -> str:
        return f"node {self.node}: {self.reason}"


def missed(codec: Codec, error: float, where: str) -> str | None:
    """What to say of an update that lost more than its codec was asked for; None if nothing."""
    wanted = target(codec)
    if wanted is None or error <= SLACK * wanted:
        return None
    return f"{where}: coding lost {100 * error:.3g} % of an update's energy, {100 * wanted:.3g} % were asked for"


def target(codec: Codec) -> float | None:
    """The NMSE that a codec was asked for; None if none was."""
    if isinstance(codec, Thin) and replace(codec, speed=Thin.speed) == Thin():
        return NMSE
    return getattr(codec, "nmse", None)
