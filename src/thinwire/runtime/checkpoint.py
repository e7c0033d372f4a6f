"""Checkpoint: server state, client records and ledger position, committed together by one rename of the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thinwire.errors import DataError, DecodeError
from thinwire.modelfile import save_bytes
from thinwire.runtime.client import Record
from thinwire.runtime.simulate import Progress
from thinwire.runtime.state import arrays_from_bytes, record_like, record_to_bytes

MANIFEST = "manifest.json"


def save(folder: Path, progress: Progress, before: Progress | None, version: int, ledger_position: int) -> None:
    """Write what has changed since `before` (None: everything), commit it, then remove what is no longer named.

    manifest.json names every file of the checkpoint and is renamed into place last: a crash leaves the old one whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = _manifest(folder) if before is not None and (folder / MANIFEST).exists() else {"clients": {}}
    server = f"server-{version}.safetensors"
    save_bytes(record_to_bytes(progress.server), folder / server)
    clients = dict(old["clients"])
    for client, record in progress.records.items():
        if before is None or before.records.get(client) is not record:
            clients[str(client)] = _save_record(folder, client, version, record)
    manifest = {
        "version": version, "ledger_position": ledger_position, "server": server, "clients": clients,
        "have": progress.have, "accepted": progress.accepted,
    }  # fmt: skip
    save_bytes(json.dumps(manifest).encode(), folder / MANIFEST)
    _sweep(folder, manifest)


def _save_record(folder: Path, client: int, version: int, record: Record) -> dict[str, Any]:
    """The manifest's line for a client; states go to files of their own, none for clients without memory."""
    line: dict[str, Any] = {"have": record.have, "pending_version": record.pending_version}
    for part in ("state", "pending"):
        if data := getattr(record, part):
            line[part] = f"client-{client}-{part}-{version}.safetensors"
            save_bytes(data, folder / line[part])
    return line


def _sweep(folder: Path, manifest: dict[str, Any]) -> None:
    named = {MANIFEST, manifest["server"]}
    for line in manifest["clients"].values():
        named |= {line[part] for part in ("state", "pending") if part in line}
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink()


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise DataError(f"{folder}: no {MANIFEST}, there is nothing to resume") from None
    except ValueError as error:
        raise DataError(f"{folder / MANIFEST}: not JSON ({error})") from None


def load(folder: Path, initial_server: Any) -> tuple[Progress, int]:
    """The progress last committed and the ledger's length with it. `initial_server` gives the types of the state."""
    manifest = _manifest(folder)
    try:
        server = record_like(initial_server, (folder / manifest["server"]).read_bytes())
        records = {int(client): _load_record(folder, line) for client, line in manifest["clients"].items()}
        have, accepted = ({int(client): v for client, v in manifest[name].items()} for name in ("have", "accepted"))
        return Progress(server, have, accepted, records), manifest["ledger_position"]
    except (OSError, DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: the checkpoint is broken ({type(error).__name__}: {error})") from None


def _load_record(folder: Path, line: dict[str, Any]) -> Record:
    state, pending = ((folder / line[part]).read_bytes() if part in line else b"" for part in ("state", "pending"))
    for data in (state, pending):
        arrays_from_bytes(data)  # a broken file must end the resumption, not drop its client round after round
    return Record(line["have"], state, pending, line["pending_version"])
