"""What clients keep, on disk: one SQLite file of states, and of lines that say which states a client had when.

A line holds for its client from a version on, until the client's next line. A commit adds the lines of one version and
takes none away: the lines of every version that is still kept are there, whatever happens next, and the manifest alone
says which version counts. What no kept version needs goes later, in a transaction of its own.

`known` leaves the file as it is. A store forgets, when it is opened, the lines and states of what came after
`version`, the one that the run goes on from: a run that was killed between a commit and the manifest's renaming left
some. A state has at most 10⁹ bytes (SQLite's bound).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from thinwire.errors import DataError

CLIENTS = "clients.sqlite"
PAGE_BYTES, HEADER_BYTES = 16384, 100
TABLES = """
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY, client INTEGER NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS state_of ON state (client, digest);
CREATE TABLE IF NOT EXISTS line (
    client INTEGER NOT NULL, version INTEGER NOT NULL, have INTEGER, accepted INTEGER,
    holds INTEGER, pending_version INTEGER NOT NULL, state INTEGER, pending INTEGER,
    PRIMARY KEY (client, version)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS line_of ON line (version);
"""
NEEDED = "SELECT state FROM line WHERE state IS NOT NULL UNION SELECT pending FROM line WHERE pending IS NOT NULL"


class Line(NamedTuple):
    """A client's record but for its bytes: version held, ids of its states (None: no bytes), version of the pending."""

    holds: int | None
    pending_version: int
    state: int | None
    pending: int | None


class Known(NamedTuple):
    """What a checkpoint says of a client: `have` and `accepted` as the server knows them (None: never), its line."""

    client: int
    have: int | None
    accepted: int | None
    line: Line


class Store:
    """The file of one checkpoint folder, opened by the first write or read of a state.

    A process that forks must not have used it before: SQLite's connections do not cross a fork.
    """

    def __init__(self, folder: Path, version: int = -1) -> None:
        self.path, self.version = folder / CLIENTS, version
        self.connection: sqlite3.Connection | None = None

    def put(self, client: int, data: bytes) -> int:
        """The id of a client's state, written unless it is there."""
        digest = _digest(data)
        with self._writing() as file:
            found = file.execute("SELECT id FROM state WHERE client = ? AND digest = ?", (client, digest)).fetchone()
            if found is None:
                row = (client, digest, data)
                found = (file.execute("INSERT INTO state (client, digest, data) VALUES (?, ?, ?)", row).lastrowid,)
        return found[0]

    def get(self, client: int, id: int) -> bytes:
        """A client's state; DataError when it is not what was written."""
        try:
            return _checked(self._opened(), client, id)
        except (sqlite3.Error, ValueError):
            broken = f"the checkpoint is broken, client {client}'s state is not what was written"
            raise DataError(f"{self.path}: {broken}") from None

    def commit(self, version: int, known: Iterable[Known]) -> None:
        """Add the lines of a version; it and all states put before are on disk when this returns."""
        rows = ((client, version, have, accepted, *line) for client, have, accepted, line in known)
        with self._writing() as file:
            file.executemany("INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            file.execute("COMMIT")
        self.version = version

    def keep(self, oldest: int, living: Mapping[int, Collection[int]]) -> None:
        """Take away what only versions before `oldest` need, and what nothing needs of the states of these clients.

        living: ids that are still in use, by client.
        """
        with self._writing() as file:
            changed = {client for (client,) in file.execute("SELECT client FROM line WHERE version = ?", (oldest,))}
            earlier = ((client, oldest) for client in changed)
            file.executemany("DELETE FROM line WHERE client = ? AND version < ?", earlier)
            self.sweep({**dict.fromkeys(changed, ()), **living})
            file.execute("COMMIT")

    def sweep(self, living: Mapping[int, Collection[int]]) -> None:
        """Take away states of these clients that neither a line names nor their ids here."""
        with self._writing() as file:
            for client, ids in living.items():
                lines = file.execute("SELECT state, pending FROM line WHERE client = ?", (client,)).fetchall()
                needed = {id for line in lines for id in line}.union(ids)
                there = file.execute("SELECT id FROM state WHERE client = ?", (client,)).fetchall()
                file.executemany("DELETE FROM state WHERE id = ?", (id for id in there if id[0] not in needed))

    def close(self) -> None:
        """Let go of the file; what was not committed is gone."""
        if self.connection:
            self.connection.close()
            self.connection = None

    def __del__(self) -> None:  # from Python 3.13 on, a connection warns when nobody closes it
        with suppress(sqlite3.Error):
            self.close()

    def _opened(self) -> sqlite3.Connection:
        if self.connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path, isolation_level=None)
            for setting in (f"page_size = {PAGE_BYTES}", "journal_mode = TRUNCATE", "synchronous = FULL"):
                self.connection.execute(f"PRAGMA {setting}")
            self.connection.executescript(TABLES)
            self._forget_what_came_after(self.connection)
        return self.connection

    def _forget_what_came_after(self, file: sqlite3.Connection) -> None:
        file.execute("BEGIN IMMEDIATE")
        file.execute("DELETE FROM line WHERE version > ?", (self.version,))
        file.execute(f"DELETE FROM state WHERE id NOT IN ({NEEDED})")
        file.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The file in a transaction, which lasts until the next commit."""
        try:
            file = self._opened()
            if not file.in_transaction:
                file.execute("BEGIN IMMEDIATE")
            yield file
        except sqlite3.Error as error:  # OSError, as other files of a checkpoint raise it
            full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(self.path)) from None


def known(folder: Path, version: int) -> list[Known]:
    """What the file says of every client at a version, in their order.

    DataError when it is cut or no such file, or when a state that came with this very version is not what was written.
    """
    path = folder / CLIENTS
    query = "SELECT client, have, accepted, holds, pending_version, state, pending FROM line WHERE version <= ?"
    try:
        _check_length(path)
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute(f"{query} ORDER BY client, version", (version,))
            found = {row[0]: Known(row[0], row[1], row[2], Line(*row[3:])) for row in rows}
            latest = file.execute("SELECT client, pending FROM line WHERE version = ? AND pending NOTNULL", (version,))
            for client, pending in latest.fetchall():  # an open cursor would hold the file's lock on
                _checked(file, client, pending)
            return list(found.values())
    except (sqlite3.Error, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the checkpoint is broken ({error})") from None


def _checked(file: sqlite3.Connection, client: int, id: int) -> bytes:
    """A client's state; ValueError when it is not what was written."""
    query = "SELECT client, digest, CAST(data AS BLOB) FROM state WHERE id = ?"
    row = file.execute(query, (id,)).fetchone()
    if row is None or row[:2] != (client, _digest(row[2])):
        raise ValueError(f"client {client}'s state is not what was written")
    return row[2]


def _check_length(path: Path) -> None:
    """OSError unless a file that no transaction was open on is as long as its header says."""
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
    page = int.from_bytes(header[16:18], "big")
    pages, size = int.from_bytes(header[28:32], "big"), path.stat().st_size
    journal = path.with_name(f"{path.name}-journal")
    if size < page * pages and not (journal.exists() and journal.stat().st_size):
        raise OSError(f"{path.name} is cut: {size} bytes")


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()[:16]
