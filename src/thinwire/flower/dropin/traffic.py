"""What crosses between a strategy and its nodes, in bytes, and who was dropped."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import MetricRecord


@dataclass(frozen=True)
class Traffic:
    """Sums over messages: payload bytes, and the bytes of the arrays that they stand for.

    Payload is frames and, down, the few words beside each. Flower's own cost of a message comes on top.
    """

    up_bytes: int = 0
    up_dense_bytes: int = 0
    down_bytes: int = 0
    down_dense_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(mine + theirs for mine, theirs in zip(self._all, other._all, strict=True)))

    @property
    def _all(self) -> tuple[int, int, int, int]:
        return self.up_bytes, self.up_dense_bytes, self.down_bytes, self.down_dense_bytes

    def beside(self, metrics: MetricRecord | None) -> MetricRecord:
        """Aggregated metrics with the sums beside them."""
        names = "up", "up-dense", "down", "down-dense"
        sums = {f"thinwire-{name}-bytes": sum for name, sum in zip(names, self._all, strict=True)}
        return MetricRecord({**(metrics or {}), **sums})

    def __str__(self) -> str:
        return (
            f"{self.up_bytes:,} bytes up for {self.up_dense_bytes:,}, "
            f"{self.down_bytes:,} down for {self.down_dense_bytes:,}"
        )


@dataclass(frozen=True)
class Dropped:
    """A reply that was not handed to the strategy."""

    round: int
    node: int
    reason: str

    def __str__(self) -> str:
        return f"node {self.node}: {self.reason}"
