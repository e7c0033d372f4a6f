"""What crosses between ServerApp and ClientApp: one frame as one Array, and a few words beside it.

A record of many small arrays costs a request each on Flower's wire; a frame is one Array, whatever is in it.
"""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from thinwire import __version__
from thinwire.errors import DecodeError, shown
from thinwire.runtime.client import Answer

HELLO = "query"  # message type: who is there? Rounds and evaluations have Flower's own, "train" and "evaluate"
STYPE = "thinwire.frame"
_FRAME, _WORDS, _KEY = "thinwire", "thinwire-words", "frame"
_STATUS = ("done", "keyframe", "failed", "stop")


def frame_record(data: bytes) -> ArrayRecord:
    """Bytes as a record of one Array."""
    return ArrayRecord({_KEY: Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})


def frame_of(content: RecordDict) -> bytes:
    """Inverse of `frame_record` in a message; DecodeError when there is no such record."""
    record = content.array_records.get(_FRAME)
    array = record.get(_KEY) if record else None
    if array is None or array.stype != STYPE:
        raise DecodeError("message: holds no thinwire frame; are ServerApp and ClientApp both thinwire's?")
    return array.data


def instruction(node: int, kind: str, message: bytes, ttl_seconds: float) -> Message:
    """A message to one node; it and its reply are worth nothing after so many seconds."""
    content = RecordDict({_FRAME: frame_record(message)})
    return Message(content, dst_node_id=node, message_type=kind, ttl=ttl_seconds)


def hello(node: int, run: int, ttl_seconds: float) -> Message:
    """The question of which client a node is; it tells the run and this side's version."""
    words = ConfigRecord({"run": run, "version": __version__})
    return Message(RecordDict({_WORDS: words}), dst_node_id=node, message_type=HELLO, ttl=ttl_seconds)


def words_of(content: RecordDict) -> dict[str, Any]:
    """The few words of a message; none when it has none."""
    return dict(content.config_records.get(_WORDS) or {})


def words_record(words: dict[str, Any]) -> RecordDict:
    """A message of a few words."""
    return RecordDict({_WORDS: ConfigRecord(words)})


def answer_record(answer: Answer) -> RecordDict:
    """A client's answer: its frame, and its status, reason and metrics in words."""
    metrics = {f"metric.{name}": float(value) for name, value in answer.metrics.items()}
    content = words_record({"status": answer.status, "reason": answer.reason, **metrics})
    if answer.frame:
        content[_FRAME] = frame_record(answer.frame)
    return content


def answer_of(client: int, content: RecordDict) -> Answer:
    """Inverse of `answer_record`; DecodeError when a node answers with something else."""
    words = words_of(content)
    status, reason = words.get("status"), words.get("reason", "")
    if status not in _STATUS or not isinstance(reason, str):
        raise DecodeError(f"reply: status {shown(repr(status), 40)}, one of {', '.join(_STATUS)} expected")
    frame = frame_of(content) if status in ("done", "keyframe") else b""
    metrics = {
        name.removeprefix("metric."): value
        for name, value in words.items()
        if name.startswith("metric.") and isinstance(value, float)
    }
    if status not in ("done", "keyframe"):
        reason = reason or "it failed and did not say why"
    return Answer(client, status, frame, reason=shown(reason), metrics=metrics)
