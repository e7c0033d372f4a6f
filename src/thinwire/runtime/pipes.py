"""What crosses the pipe between a run and a worker process: JSON and bytes, no pickle."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from thinwire.codecs.entries import Entries, Vector
from thinwire.errors import ThinwireError
from thinwire.methods import Update
from thinwire.runtime.client import Answer, Record
from thinwire.runtime.reading import Reading

WORKER_ENDED = "a worker process ended (out of memory?): use fewer --workers, then resume"


def ended(error: Exception) -> Exception:
    """An error of a pipe as the run reports it: a ThinwireError when nobody is at the other end."""
    return ThinwireError(WORKER_ENDED) if isinstance(error, EOFError | OSError) else error


def pack(head: dict[str, Any], *parts: bytes) -> bytes:
    """A head for JSON, and byte strings."""
    every = [json.dumps(head).encode(), *parts]
    return struct.pack(f"<I{len(every)}Q", len(every), *map(len, every)) + b"".join(every)


def unpack(data: bytes) -> list[Any]:
    """Inverse of `pack`."""
    (count,) = struct.unpack_from("<I", data)
    start, parts = 4 + 8 * count, []
    for length in struct.unpack_from(f"<{count}Q", data, 4):
        parts.append(data[start : start + length])
        start += length
    return [json.loads(parts[0]), *parts[1:]]


def numbers(record: Record) -> dict[str, Any]:
    """What of a record goes into a head."""
    return {"have": record.have, "pending": record.pending_version}


def pack_answer(answer: Answer) -> bytes:
    """A client's answer and its record."""
    record = answer.record
    head = {"client": answer.client, "status": answer.status, "reason": answer.reason, "metrics": answer.metrics}
    return pack(head | numbers(record), answer.frame, record.state, record.pending)


def unpack_answer(data: bytes) -> Answer:
    """Inverse of `pack_answer`."""
    head, frame, state, pending = unpack(data)
    record = Record(head["have"], state, pending, head["pending"])
    return Answer(head["client"], head["status"], frame, record, head["reason"], head["metrics"])


def pack_reading(reading: Reading | None) -> bytes:
    """What came of a frame; nothing, where the process could not read it."""
    if reading is None:
        return pack({})
    head = {"parts": reading.parts, "seconds": reading.seconds, "refused": reading.refused}
    if (update := reading.update) is None:
        return pack(head)
    head |= {"samples": update.samples, "bits": update.marginal_bits}
    change = update.change
    if isinstance(change, Entries):
        return pack(head | {"size": change.size}, update.buffers, change.places.tobytes(), change.values.tobytes())
    return pack(head | {"dtype": change.dtype.str}, update.buffers, change.tobytes())


def unpack_reading(data: bytes) -> Reading | None:
    """Inverse of `pack_reading`."""
    head, *parts = unpack(data)
    if not head:
        return None
    update = Update(head["samples"], _vector(head, parts[1:]), head["bits"], parts[0]) if parts else None
    return Reading(update, head["parts"], head["seconds"], head["refused"])


def _vector(head: dict[str, Any], arrays: list[bytes]) -> Vector:
    if "size" in head:
        return Entries(head["size"], np.frombuffer(arrays[0], np.int64), np.frombuffer(arrays[1], np.float32))
    return np.frombuffer(arrays[0], head["dtype"])
