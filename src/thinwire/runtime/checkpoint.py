"""Checkpoint: server state, client records and ledger, committed together by one rename. The last two are kept.

manifest-N.json (N: rounds played) names the server's file, and N is the version that counts among those of the clients'
file. It is renamed into place last, when all of them are on the disk: a crash leaves the one before it whole. The
server's file is named by a digest of what is in it, the manifest holds its own, so a torn or changed checkpoint shows
when it is loaded, and the one before it is taken.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from thinwire.errors import DataError, DecodeError
from thinwire.modelfile import save_bytes, sync_folder
from thinwire.runtime.progress import Progress
from thinwire.runtime.records import Shelf, from_known
from thinwire.runtime.state import record_like, record_to_bytes
from thinwire.runtime.store import CLIENTS, known

T = TypeVar("T")
Manifest = dict[str, Any]
_OURS = re.compile(r"(?:manifest|server)-(\d+)\b[^/\\]*")


def save(folder: Path, progress: Progress, version: int, ledger: Any) -> None:
    """Write what is not yet there, commit it, then remove what the last two checkpoints do not need.

    version: rounds played. ledger: its mark, handed back by `load`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = record_to_bytes(progress.server)
    server = f"server-{version}-{_digest(state)}.safetensors"
    save_bytes(state, folder / server)
    progress.records.write(folder, version, progress.have, progress.accepted)
    clients = len(progress.records)
    manifest = {
        "version": version, "tries": progress.tries, "ledger": ledger, "server": server, "clients": clients,
    }  # fmt: skip
    sync_folder(folder)
    text = json.dumps(manifest | {"digest": _digest(json.dumps(manifest).encode())})
    save_bytes(text.encode(), folder / f"manifest-{version}.json")
    sync_folder(folder)
    progress.records.keep(oldest=sweep(folder, version))


def sweep(folder: Path, version: int) -> int:
    """Remove manifests and server states but those of a version and of the last one before it. -> the older of them."""
    kept = [number for path in _manifests(folder) if (number := _number(path)) <= version][:2]
    for path in sorted(folder.iterdir()):  # a manifest goes before what it names
        if path.suffix == ".tmp" or (_OURS.fullmatch(path.name) and _number(path) not in kept):
            path.unlink()
    return min(kept)


def _manifests(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("manifest-*.json"), key=_number, reverse=True)


def _number(path: Path) -> int:
    found = _OURS.fullmatch(path.name)
    return int(found[1]) if found else -1


def saved(folder: Path) -> bool:
    """Is there a checkpoint, whole or not?"""
    return bool(_manifests(folder))


def load(
    folder: Path, initial_server: Any, most_bytes: float = inf, reopen: Callable[[Any], T] = lambda mark: mark
) -> tuple[Progress, T]:
    """The progress last committed, and what `reopen` makes of the ledger's mark with it.

    Of the last two checkpoints the older one, with a line on stderr, when the newer one or its ledger is broken;
    DataError when both are. `initial_server` gives the types of the state. Client states stay on disk until their
    client is asked; `most_bytes` bounds what later rounds keep in memory.
    """

    def take(path: Path) -> tuple[Progress, T]:
        server, manifest = _server(path, initial_server)
        return _progress(path, server, manifest, most_bytes), reopen(manifest["ledger"])

    return _newest(folder, take)


def load_server(folder: Path, initial_server: Any) -> Any:
    """The server's state last committed, or the one before it as in `load`; the clients' file is left alone."""
    return _newest(folder, lambda path: _server(path, initial_server)[0])


def _newest(folder: Path, take: Callable[[Path], T]) -> T:
    """What `take` makes of the newest manifest that it does not refuse."""
    paths = _manifests(folder)
    if not paths:
        raise DataError(f"{folder}: no manifest, there is nothing to resume")
    broken: list[DataError] = []
    for path in paths:
        try:
            taken = take(path)
        except DataError as error:
            broken.append(error)
            continue
        for reason in broken:
            print(f"{reason}; going on from the one before it, {path.name}", file=sys.stderr)
        return taken
    raise broken[0]


def _server(path: Path, initial: Any) -> tuple[Any, Manifest]:
    """The server's state and the manifest that names it; DataError unless both are what was written."""
    try:
        manifest = json.loads(path.read_bytes())
        if manifest.pop("digest") != _digest(json.dumps(manifest).encode()):
            raise ValueError("not what was written")
        name = manifest["server"]
        if not _OURS.fullmatch(name):
            raise ValueError(f"{name!r} is no server's file")
        state = (path.parent / name).read_bytes()
        if Path(name).stem.rpartition("-")[2] != _digest(state):
            raise ValueError(f"{name} is not what was written")
        return record_like(initial, state), manifest
    except (OSError, DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(path, error) from None


def _progress(path: Path, server: Any, manifest: Manifest, most_bytes: float) -> Progress:
    try:
        version, tries, count = (int(manifest[name]) for name in ("version", "tries", "clients"))
        manifest["ledger"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, error) from None
    folder, lines = path.parent, known(path.parent, version)
    if len(lines) != count:
        raise DataError(f"{path}: the checkpoint is broken ({len(lines)} clients in {CLIENTS}, not {count})")
    have = {line.client: line.have for line in lines if line.have is not None}
    accepted = {line.client: line.accepted for line in lines if line.accepted is not None}
    records = from_known(Shelf(folder, most_bytes, version), lines)
    return Progress(server, have, accepted, records, version, tries)


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: the checkpoint is broken ({type(error).__name__}: {error})")


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]
