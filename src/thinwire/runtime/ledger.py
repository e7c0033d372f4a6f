"""The ledger: what every round cost and gave, one line of JSON a round."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from math import fsum
from pathlib import Path
from typing import Any

from thinwire.errors import DataError
from thinwire.modelfile import no_link, save_bytes, sync_folder


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
        return fsum(self.marginal_bits) / len(self.marginal_bits) / self.parameters


@dataclass(frozen=True)
class Round:
    """One line of the ledger. Rounds count from 1; total_bytes sums all traffic of the run so far.

    accuracy, loss: of the server's model, None in rounds after which it is not scored. A loss that is not finite is
    None beside an accuracy: the model has diverged.
    error_feedback: do clients send again what the uplink codec lost, or what share of it? The personal numbers are
    those of the clients' own held-back samples, None in rounds without such an evaluation. link_seconds: what the
    round's messages would take over the links of `[link]`, None without. up_by_sort, down_by_sort: up_bytes and
    down_bytes by what messages are for; up_parts: bytes of the accepted answers by what they are (`runtime.contents`
    names both). Ledgers of before these fields have None. tries: cohorts that the round asked, more than one where it
    was repeated for want of a quorum. skipped: why the round left the model as it was; None for a round that counted.
    train_loss: the mean of what clients said; None where none said a number from 0 on. seconds: of clients, what they
    say, left out where it is below 0 or longer than its round took on the server. nmse, worst_nmse: ‖x − x̂‖² / ‖x‖²
    of the accepted updates, the mean and the largest, as their clients measured it; missed: how many of them missed
    their codec's target. None where no client said so, as in a method without such a codec.
    """

    round: int
    accuracy: float | None
    loss: float | None
    train_loss: float | None
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
    error_feedback: bool | float | None = None
    personal_accuracy: float | None = None
    personal_worst_decile: float | None = None
    link_seconds: float | None = None
    up_by_sort: dict[str, int] | None = None
    down_by_sort: dict[str, int] | None = None
    up_parts: dict[str, int] | None = None
    tries: int = 1
    skipped: str | None = None
    nmse: float | None = None
    worst_nmse: float | None = None
    missed: int | None = None

    def line(self) -> str:
        """JSON, one line."""
        return strict_json(asdict(self)) + "\n"

    @property
    def diverged(self) -> bool:
        """Was the server's model scored, and its loss not finite?"""
        return self.accuracy is not None and (self.loss is None or not math.isfinite(self.loss))


def finite(value: Any) -> Any:
    """The same lists, tables and numbers, with None in place of NaN and infinity, for which JSON has no word."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: null where a number is not finite."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


Mark = dict[str, Any]  # what a checkpoint says of the ledger: its length in bytes and the digest of that much
NOTHING: Mark = {"bytes": 0}


class Ledger:
    """rounds.jsonl: appended to after every round. `mark` is what a checkpoint commits to.

    The checkpoint's folder has a second file of the same lines: either one restores the other.
    """

    def __init__(self, path: Path, copy: Path) -> None:
        self.path, self.copy = path, copy
        self.rounds: list[Round] = []
        self.position, self.digest = 0, sha256()

    @property
    def mark(self) -> Mark:
        """Where the ledger stands."""
        return {"bytes": self.position, "sha256": self.digest.hexdigest()}

    @classmethod
    def reopen(cls, path: Path, copy: Path, mark: Mark) -> Ledger:
        """The ledger as a checkpoint has it; what a killed run wrote after it is cut off, what was lost restored.

        DataError when neither file has what was committed.
        """
        ledger = cls(path, copy)
        try:
            data = _committed(path, mark)
        except DataError as error:
            try:
                data = _committed(copy, mark)
            except DataError:
                raise error from None
        copy.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, copy):
            if not file.exists() or file.read_bytes() != data:
                save_bytes(data, file)
            sync_folder(file.parent)
        ledger.rounds = _rounds(data, path)
        ledger.position, ledger.digest = len(data), sha256(data)
        return ledger

    def append(self, entry: Round) -> None:
        """Write one round through to the disk, whole or not at all."""
        line = entry.line().encode()
        try:
            for file in (self.path, self.copy):
                _append(file, line)
        except OSError as error:
            for file in (self.path, self.copy):
                with suppress(OSError):
                    os.truncate(file, self.position)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.position += len(line)
        self.digest.update(line)
        self.rounds.append(entry)

    @property
    def total_bytes(self) -> int:
        """All traffic of the run so far."""
        return self.rounds[-1].total_bytes if self.rounds else 0


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab", opener=no_link) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _committed(path: Path, mark: Mark) -> bytes:
    """As much of a file as was committed; DataError when it is not there or not the same."""
    try:
        data = path.read_bytes()[: mark["bytes"]] if mark["bytes"] else b""
        length, digest = mark["bytes"], mark.get("sha256")
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None
    if len(data) != length:
        raise DataError(f"{path}: {len(data)} bytes, the checkpoint was made at {length}")
    if digest not in (None, sha256(data).hexdigest()):
        raise DataError(f"{path}: not what the checkpoint was made with")
    _rounds(data, path)
    return data


def _rounds(data: bytes, path: Path) -> list[Round]:
    try:
        rounds = [Round(**json.loads(line)) for line in data.splitlines()]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: a line is not one of a ledger ({error})") from None
    for number, entry in enumerate(rounds, 1):
        if entry.round != number:
            raise DataError(f"{path}, line {number}: is of round {entry.round}, lines must count rounds 1, 2, 3 …")
    return rounds
