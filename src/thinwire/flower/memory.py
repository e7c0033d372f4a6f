"""What one node keeps between rounds: its client's record and the global model that it decoded last, and a digest.

It lies in Flower's `context.state`, which lives in the SuperNode's memory and dies with it; or, where the node's
configuration names a `state-dir`, in a file there, which a SuperNode that is started again finds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context

from thinwire import frame as frames
from thinwire.errors import DecodeError
from thinwire.methods import Method
from thinwire.modelfile import save_bytes
from thinwire.runtime.client import Record
from thinwire.runtime.state import record_like, record_to_bytes
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
        self.method, self.context = method, context
        self.name = f"thinwire-{run:08x}-client-{client}"
        folder = context.node_config.get("state-dir")
        self.path = Path(str(folder)) / f"{self.name}.safetensors" if folder else None

    def load(self) -> tuple[Record, Held | None]:
        """The record and the held model; empty ones for a node that remembers nothing."""
        data = self._read()
        if not data:
            return Record(), None
        try:
            kept = record_like(self._example, data, self._layout)
        except DecodeError as error:
            log.warning("%s: %s; asking for a keyframe", self.path or self.name, error)
            return Record(), None
        return kept.record, Held(kept.version, kept.value, dict(kept.trail))

    def save(self, record: Record, held: Held) -> None:
        """Keep both, whole or not at all."""
        data = record_to_bytes(_Kept(record, held.version, held.value, tuple(held.trail.items())), self._layout)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_bytes(data, self.path)
        else:
            self.context.state[self.name] = ConfigRecord({"memory": data})

    @cached_property
    def _layout(self) -> bytes:
        """What the memory is sealed with: one of a model with other tensors is as good as lost."""
        return frames.read(self.method.broadcast(self.method.init(), None)).layout

    @property
    def _example(self) -> _Kept:
        """A memory with the types of this method's."""
        first = self.method.receive(self.method.broadcast(self.method.init(), None), None, None)
        return _Kept(Record(), first.version, first.value, ())

    def _read(self) -> bytes:
        if self.path:
            try:
                return self.path.read_bytes() if self.path.is_file() else b""
            except OSError as error:
                log.warning("%s: %s; asking for a keyframe", self.path, error.strerror)
                return b""
        record = self.context.state.config_records.get(self.name)
        data = record.get("memory") if record else b""
        return data if isinstance(data, bytes) else b""
