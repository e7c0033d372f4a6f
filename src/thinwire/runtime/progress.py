"""What a run consists of between two rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thinwire.runtime.records import Records


@dataclass
class Progress:
    """All that a run consists of after a round: what a checkpoint saves.

    server: the method's state. have: version each client proved to hold. accepted: version last accepted from each.
    records: what the simulated clients keep for themselves. played: rounds so far, those among them that were skipped
    too. tries: cohorts asked so far; as many as rounds unless one was left without quorum.
    """

    server: Any
    have: dict[int, int] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    records: Records = field(default_factory=Records)
    played: int = 0
    tries: int = 0
