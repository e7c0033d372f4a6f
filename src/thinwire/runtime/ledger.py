"""The ledger: what every round cost and gave, one line of JSON a round."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thinwire.errors import DataError


@dataclass
class Traffic:
    """Bytes of one round as they cross, both directions."""

    parameters: int
    up: list[int] = field(default_factory=list)  # bytes of each client's answer
    down: list[int] = field(default_factory=list)  # bytes sent to each client
    evaluate_bytes: int = 0
    marginal_bits: list[float] = field(default_factory=list)
    up_by_sort: Counter[str] = field(default_factory=Counter)
    down_by_sort: Counter[str] = field(default_factory=Counter)
    up_parts: Counter[str] = field(default_factory=Counter)

    def sent(self, sizes: Mapping[int, int], sorts: Mapping[int, str]) -> None:
        """Count a message to each of some clients, of so many bytes and what for."""
        self.down += sizes.values()
        for client, size in sizes.items():
            self.down_by_sort[sorts[client]] += size

    def received(self, size: int, sort: str) -> None:
        """Count an answer's bytes by what it was for."""
        self.up.append(size)
        self.up_by_sort[sort] += size

    def bpp(self, sizes: list[int]) -> float:
        """Mean bits per parameter of the dense model over the messages given, headers included."""
        return 8 * sum(sizes) / max(len(sizes), 1) / self.parameters

    @property
    def marginal_bpp(self) -> float | None:
        """A named bound: mean bits per parameter if each update were coded alone; None where no method gives one."""
        if not self.marginal_bits:
            return None
        return sum(self.marginal_bits) / len(self.marginal_bits) / self.parameters


@dataclass(frozen=True)
class Round:
    """One line of the ledger. Rounds count from 1; total_bytes sums all traffic of the run so far.

    accuracy, loss: of the server's model, None in rounds after which it is not scored.
    error_feedback: do clients send again what the uplink codec lost? The personal numbers are those of the clients'
    own held-back samples, None in rounds without such an evaluation. link_seconds: what the round's messages would
    take over the links of `[link]`, None without. up_by_sort, down_by_sort: up_bytes and down_bytes by what messages
    are for; up_parts: bytes of the accepted answers by what they are (`runtime.contents` names both). Ledgers of
    before these fields have None.
    """

    round: int
    accuracy: float | None
    loss: float | None
    train_loss: float
    up_bytes: int
    down_bytes: int
    evaluate_bytes: int
    up_bpp: float
    up_bpp_marginal: float | None
    down_bpp: float
    total_bytes: int
    clients: int
    dropped: list[dict[str, Any]]
    seconds: dict[str, float]
    error_feedback: bool | None = None
    personal_accuracy: float | None = None
    personal_worst_decile: float | None = None
    link_seconds: float | None = None
    up_by_sort: dict[str, int] | None = None
    down_by_sort: dict[str, int] | None = None
    up_parts: dict[str, int] | None = None

    def line(self) -> str:
        """JSON, one line."""
        return json.dumps(asdict(self)) + "\n"


class Ledger:
    """rounds.jsonl: appended to after every round; `position` is the length that a checkpoint commits to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rounds: list[Round] = []
        self.position = 0

    @classmethod
    def reopen(cls, path: Path, position: int) -> Ledger:
        """The ledger up to a committed length; what a killed run wrote after it is cut off."""
        ledger = cls(path)
        path.touch()  # a run may be killed before its first line
        with open(path, "r+b") as file:
            committed = file.read(position)
            if len(committed) != position:
                raise DataError(f"{path}: {len(committed)} bytes, the checkpoint was made at {position}")
            file.truncate(position)
        try:
            ledger.rounds = [Round(**json.loads(line)) for line in committed.splitlines()]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: a line is not one of a ledger ({error})") from None
        ledger.position = position
        return ledger

    def append(self, entry: Round) -> None:
        """Write one round through to the disk."""
        with open(self.path, "ab") as file:
            file.write(entry.line().encode())
            file.flush()
            os.fsync(file.fileno())
            self.position = file.tell()
        self.rounds.append(entry)

    @property
    def total_bytes(self) -> int:
        """All traffic of the run so far."""
        return self.rounds[-1].total_bytes if self.rounds else 0
