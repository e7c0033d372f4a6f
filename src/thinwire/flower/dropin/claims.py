"""Claims: the number of samples that a node says it has, by which strategies weigh its reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from statistics import median

from flwr.app import MetricRecord

Metrics = Mapping[str, MetricRecord]  # of one reply, by record
Claim = int | float | list[int] | list[float]
MULTIPLE = 10  # of the median of a round's claims: the largest that stands unless the user gives a number
FEWEST = 3  # replies that have a median: of two, one alone could move it as far as it likes


@dataclass(frozen=True)
class Claims:
    """What may be claimed under a key of the metrics: a finite number above 0.

    most: the largest; None for MULTIPLE times the median of the round, from FEWEST replies on.
    """

    key: str = "num-examples"
    most: float | None = None

    def wrong(self, replies: Mapping[int, Metrics]) -> dict[int, str]:
        """Reasons against claims that no node can make, by the number of the reply."""
        faults = {number: self._fault(metrics) for number, metrics in replies.items()}
        return {number: fault for number, fault in faults.items() if fault}

    def _fault(self, metrics: Metrics) -> str | None:
        for value in self._values(metrics):
            if isinstance(value, list):
                return f"metric {self.key!r} is a list, one number expected"
            if not 0 < value < inf:
                return f"metric {self.key!r} = {value!r}: a finite number above 0 expected"
        return None

    def excessive(self, replies: Mapping[int, Metrics]) -> dict[int, str]:
        """Reasons against claims that are none of `wrong` but larger than may be."""
        claimed = {
            number: float(value)
            for number, metrics in replies.items()
            for value in self._values(metrics)
            if not isinstance(value, list)
        }
        most, why = self.most, "max_samples"
        if most is None and len(claimed) >= FEWEST:
            most, why = MULTIPLE * median(claimed.values()), f"{MULTIPLE} times the median of the round"
        return {
            number: f"metric {self.key!r} = {value:.12g}: at most {most:.12g} allowed, {why}"
            for number, value in claimed.items()
            if most is not None and value > most
        }

    def _values(self, metrics: Metrics) -> Iterator[Claim]:
        return (record[self.key] for record in metrics.values() if self.key in record)
