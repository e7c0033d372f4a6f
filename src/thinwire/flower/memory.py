"""What one node keeps between rounds: its client's record and the global model that it decoded last.

It lies in Flower's `context.state`, which lives in the SuperNode's memory and dies with it; or, where the node's
configuration names a `state-dir`, in a file there, which a SuperNode that is started again finds. A digest seals it: of
the content, of whose it is, and of the shapes of its model. What rotted, was cut off or changed, or belongs to another
client or model, is as good as lost. While the file cannot be written, `context.state` keeps what would be in it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context

from thinwire.errors import DataError, DecodeError
from thinwire.files import read_plain
from thinwire.methods import Method
from thinwire.modelfile import save_bytes
from thinwire.runtime.client import Record
from thinwire.runtime.state import outline, record_like, record_to_bytes
from thinwire.versions import Held

log = logging.getLogger("flwr.thinwire")


@dataclass(frozen=True)
class _Kept:
    record: Record
    version: int
    value: Any
    trail: tuple[tuple[int, int], ...]


class Memory:
    """One client's memory on its node. What cannot be read is as good as lost: the client asks for a keyframe."""

    def __init__(self, method: Method, run: int, client: int, context: Context) -> None:
        self.method, self.client, self.context = method, client, context
        self.name = f"thinwire-{run:08x}-client-{client}"
        folder = context.node_config.get("state-dir")
        self.path = Path(str(folder)) / f"{self.name}.safetensors" if folder else None

    def load(self) -> tuple[Record, Held | None]:
        """The record and the held model; empty ones for a node that remembers nothing."""
        try:
            data = self._read()
            if not data:
                return Record(), None
            kept = record_like(self._example, data, self._seal)
            return kept.record, Held(kept.version, kept.value, dict(kept.trail))
        except DataError as error:  # names the file
            log.warning("%s; asking for a keyframe", error)
        except (DecodeError, OSError, TypeError, ValueError) as error:
            log.warning("%s: %s; asking for a keyframe", self.path or self.name, error)
        return Record(), None

    def save(self, record: Record, held: Held) -> None:
        """Keep both, whole or not at all."""
        data = record_to_bytes(_Kept(record, held.version, held.value, tuple(held.trail.items())), self._seal)
        if not (self.path and self._written(data, self.path)):
            self.context.state[self.name] = ConfigRecord({"memory": data})
        elif self.name in self.context.state:
            del self.context.state[self.name]  # older than the file from now on

    def _written(self, data: bytes, path: Path) -> bool:
        """Whether the file is there; a warning says why not: a full or foreign disk costs the client no round."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_bytes(data, path)
        except OSError as error:
            log.warning("%s: cannot be written (%s); kept until the SuperNode ends", path, error.strerror)
            return False
        return True

    @cached_property
    def _seal(self) -> bytes:
        """Whose memory it is, and the shapes of its model."""
        return json.dumps([self.name, outline(self._example), outline(self.method.client_init(self.client))]).encode()

    @cached_property
    def _example(self) -> _Kept:
        """A memory with the types of this method's."""
        first = self.method.receive(self.method.broadcast(self.method.init(), None), None, None)
        return _Kept(Record(), first.version, first.value, ())

    def _read(self) -> bytes:
        record = self.context.state.config_records.get(self.name)
        if record is None and self.path:
            return read_plain(self.path) if self.path.exists() else b""
        data = record.get("memory") if record else b""
        return data if isinstance(data, bytes) else b""
