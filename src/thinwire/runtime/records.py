"""What the simulated clients keep between rounds: so many bytes in memory, the rest on disk with the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from thinwire.runtime.client import Record
from thinwire.runtime.store import Known, Line, Store


@dataclass(eq=False, slots=True)
class Entry:
    """One client's record: in memory, on disk (`line` names its states), or both. What it holds never changes."""

    client: int
    record: Record | None
    line: Line | None = None

    @property
    def ids(self) -> list[int]:
        """Its states on disk."""
        return [id for id in self.line[2:] if id is not None] if self.line else []


class Shelf:
    """Where records are: beyond `most_bytes` in memory, the least recently stored ones lie in the store of `folder`.

    version: the one that the run goes on from; what the folder has of later ones is forgotten.
    """

    def __init__(self, folder: Path | None = None, most_bytes: float = inf, version: int = -1) -> None:
        self.store = Store(folder, version) if folder else None
        self.most_bytes = most_bytes
        self.resident: dict[Entry, int] = {}  # entries in memory and their bytes, the least recently stored first
        self.held_bytes = 0
        self.uncommitted: set[Entry] = set()  # those of no checkpoint yet, superseded ones among them
        self.touched: set[int] = set()  # clients with states on disk that may be superseded

    def put(self, client: int, record: Record) -> Entry:
        """Store a record; others make room for it, or it goes to disk itself."""
        entry, size = Entry(client, record), len(record.state) + len(record.pending)
        self.uncommitted.add(entry)
        while self.resident and self.held_bytes + size > self.most_bytes:
            self._spill(next(iter(self.resident)))
        if size:
            self.resident[entry] = size
            self.held_bytes += size
        if self.held_bytes > self.most_bytes:
            self._spill(entry)
        return entry

    def _spill(self, entry: Entry) -> None:
        self.write(entry)
        self._forget(entry)
        entry.record = None

    def _forget(self, entry: Entry) -> None:
        self.held_bytes -= self.resident.pop(entry)

    def write(self, entry: Entry) -> Line:
        """Its line; writes the states that are not there."""
        if entry.line is None:
            assert entry.record is not None
            record, store = entry.record, self.opened
            ids = [store.put(entry.client, data) if data else None for data in (record.state, record.pending)]
            entry.line = Line(record.have, record.pending_version, *ids)
            self.touched.add(entry.client)
        return entry.line

    @property
    def opened(self) -> Store:
        """The store, which there must be."""
        assert self.store is not None
        return self.store

    def read(self, entry: Entry) -> Record:
        """The record, from memory or from disk; DataError names a client whose state is not what was written."""
        if entry.record is not None:
            return entry.record
        assert entry.line is not None
        holds, pending_version, *ids = entry.line
        state, pending = (b"" if id is None else self.opened.get(entry.client, id) for id in ids)
        return Record(holds, state, pending, pending_version)

    def forget_but(self, entries: Mapping[int, Entry]) -> dict[int, list[int]]:
        """Forget what is superseded in memory. -> the ids still in use, of the clients that have others on disk."""
        self.uncommitted = {entry for entry in self.uncommitted if entries.get(entry.client) is entry}
        for entry in [entry for entry in self.resident if entries.get(entry.client) is not entry]:
            self._forget(entry)
        touched, self.touched = self.touched, set()
        return {client: entries[client].ids if client in entries else [] for client in touched}

    def close(self) -> None:
        """Let go of the store's file."""
        if self.store:
            self.store.close()


class Records(Mapping[int, Record]):
    """Records by client. A copy shares the shelf: what it stores is not seen by what it was copied from."""

    def __init__(self, shelf: Shelf | None = None, entries: dict[int, Entry] | None = None) -> None:
        self.shelf = shelf or Shelf()
        self.entries = entries or {}

    def __getitem__(self, client: int) -> Record:
        return self.shelf.read(self.entries[client])

    def __setitem__(self, client: int, record: Record) -> None:
        self.entries[client] = self.shelf.put(client, record)

    def __iter__(self) -> Iterator[int]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def of(self, client: int) -> Record:
        """A client's record; an empty one if it has none yet."""
        return self[client] if client in self.entries else Record()

    def copy(self) -> Records:
        """The same records, to be changed on their own."""
        return Records(self.shelf, dict(self.entries))

    def write(self, folder: Path, version: int, have: Mapping[int, int], accepted: Mapping[int, int]) -> None:
        """Commit to disk what the records of a version have that the last one committed has not.

        A client's `have` and `accepted` change in rounds that store a record of it, and in no others.
        """
        self.shelf.store = self.shelf.store or Store(folder)
        changed = [entry for entry in self.shelf.uncommitted if self.entries.get(entry.client) is entry]
        known = [
            Known(client, have.get(client), accepted.get(client), self.shelf.write(entry))
            for client, entry in sorted((entry.client, entry) for entry in changed)
        ]
        self.shelf.opened.commit(version, known)
        self.shelf.uncommitted = set()

    def keep(self, oldest: int) -> None:
        """The checkpoints on disk are of versions from `oldest` on: take away what no version of them needs."""
        self.shelf.opened.keep(oldest, self.shelf.forget_but(self.entries))

    def tidy(self) -> None:
        """Let go of all records but these: those of earlier rounds are no longer needed."""
        if living := self.shelf.forget_but(self.entries):
            self.shelf.opened.sweep(living)


def from_known(shelf: Shelf, lines: list[Known]) -> Records:
    """The records of a checkpoint; their states stay on disk until they are asked for."""
    return Records(shelf, {each.client: Entry(each.client, None, each.line) for each in lines})
