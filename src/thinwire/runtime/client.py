"""The client's half of a round: envelope in, frame out, state kept only once the server has accepted it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from thinwire import frame as frames
from thinwire.errors import DecodeError, NeedKeyframe, NeedValues, TrainingError, line
from thinwire.frame import Frame, Kind
from thinwire.methods import Data, Method, Update
from thinwire.methods.base import ClientState, ServerState, Trained
from thinwire.runtime.reading import Reading, read
from thinwire.runtime.state import arrays_from_bytes, arrays_to_bytes
from thinwire.versions import Held

_ACCEPTED = struct.Struct("<I")
RESULT = struct.Struct("<IIdd")  # a client's answer to an evaluation: version, test samples, accuracy, loss
ENVELOPE_BYTES = _ACCEPTED.size
NEVER = 2**32 - 1
TRAIN, EVALUATE = "train", "evaluate"  # what a message asks its client to do


@dataclass(frozen=True, slots=True)
class Record:
    """What one client keeps between rounds: `pending` holds only if the server accepted version `pending_version`."""

    have: int | None = None
    state: bytes = b""
    pending: bytes = b""
    pending_version: int = NEVER


@dataclass(frozen=True)
class Answer:
    """What comes back from one client. `status`: done, keyframe (needed), failed (dropped), stop (ends the run)."""

    client: int
    status: str
    frame: bytes = b""
    record: Record = Record()
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def envelope(accepted: int, broadcast: bytes) -> bytes:
    """Message to one client: the version last accepted from it (4 bytes), then the frame that all may share."""
    return _ACCEPTED.pack(accepted) + broadcast


def open_envelope(message: bytes) -> tuple[int, bytes]:
    """Inverse of `envelope`."""
    if len(message) < _ACCEPTED.size:
        raise DecodeError(f"envelope: {len(message)} bytes, at least {_ACCEPTED.size} needed")
    return _ACCEPTED.unpack_from(message)[0], message[_ACCEPTED.size :]


def settle(record: Record, accepted: int) -> Record:
    """The record with its pending state made good if the server accepted it, dropped if not."""
    made_good = record.pending_version != NEVER and accepted == record.pending_version
    return Record(record.have, record.pending if made_good else record.state)


@dataclass(frozen=True)
class Opened:
    """A client with a message opened: the global model, its settled record, its state, its samples, the seconds."""

    client: int
    held: Held
    record: Record
    state: ClientState
    data: Data
    seconds: float


class Clients:
    """All clients that run in one process. They share what the process has decoded; each keeps its own record."""

    def __init__(
        self,
        method: Method,
        data: Callable[[int], Data],
        run: int,
        test_data: Callable[[int], Data] | None = None,
    ) -> None:
        self.method, self.data, self.run = method, data, run
        self.test_data = test_data or data  # with the samples held back for evaluation
        self.replica: Held | None = None
        self.received: dict[tuple[bytes, int | None], Held] = {}
        self.mirror: ServerState | None = None

    def sync(self, broadcast: bytes) -> None:
        """Bring what the process holds to the current version: decodes the round's step once for all its clients."""
        have = self.replica.version if self.replica else None
        # those of the round before must not stay where the broadcast cannot be decoded
        self.received, self.mirror = {}, None
        self.replica = self.method.receive(broadcast, self.replica, have)
        self.mirror = self.method.mirror(self.replica) if self.method.mirror else None

    def receive(self, broadcast: bytes, have: int | None) -> Held:
        """What a client that had a version holds after a broadcast; each different broadcast is decoded once.

        Clients are handed the same bytes object, which is hashed once.
        """
        key = (broadcast, have)
        if key not in self.received:
            self.received[key] = self.method.receive(broadcast, self.replica, have)
        return self.received[key]

    def answer(self, client: int, record: Record, accepted: int, broadcast: bytes, purpose: str = TRAIN) -> Answer:
        """One client's round or evaluation. Whatever goes wrong on the client becomes an answer that says so."""
        try:
            opened = self.open(client, record, accepted, broadcast, purpose)
            return self._evaluate(opened) if purpose == EVALUATE else self._train(opened)
        except NeedKeyframe as need:
            spell_out = int(isinstance(need, NeedValues))
            request = frames.write(Frame(Kind.REQUEST, self.run, need.held or 0, spell_out, bytes(8)))
            return Answer(client, "keyframe", request, record)
        except TrainingError as error:
            return Answer(client, "stop", reason=f"client {client}: {error}")
        except Exception as error:  # a client may fail in any way; the run goes on without it
            return Answer(client, "failed", reason=line(error))

    def read(self, client: int, frame: bytes) -> Reading | None:
        """What comes of a client's frame, read for the server; None where the run has to read it itself."""
        if self.mirror is None:
            return None
        try:
            reading = read(self.method, self.mirror, client, frame)
        except Exception:  # a codec's defect: the run meets it too, and says what it is
            return None
        return reading if type(reading.update) in (Update, type(None)) else None  # an update of a kind of its own

    def open(self, client: int, record: Record, accepted: int, broadcast: bytes, purpose: str = TRAIN) -> Opened:
        """What a client has after a message."""
        start = perf_counter()
        held = self.receive(broadcast, record.have)
        record = settle(record, accepted)
        state = arrays_from_bytes(record.state) or self.method.client_init(client)
        seconds = perf_counter() - start
        return Opened(
            client, held, record, state, (self.test_data if purpose == EVALUATE else self.data)(client), seconds
        )

    def _train(self, opened: Opened) -> Answer:
        start = perf_counter()
        trained = self.method.train(opened.held, opened.state, opened.data)
        return _trained(opened, trained, perf_counter() - start)

    def train_together(self, group: Sequence[Opened]) -> list[Answer]:
        """Answers of clients with equally many samples; each is told an equal part of the seconds."""
        assert self.method.train_together is not None
        start = perf_counter()
        found = self.method.train_together([(opened.held, opened.state, opened.data) for opened in group])
        seconds = (perf_counter() - start) / len(group)
        return [_trained(opened, trained, seconds) for opened, trained in zip(group, found, strict=True)]

    def _evaluate(self, opened: Opened) -> Answer:
        """Scores on the samples held back. Nothing is kept of it: the record stays what it was."""
        data, version = opened.data, opened.held.version
        scores = self.method.evaluate(opened.held, opened.state, data)
        count = 0 if data.test_y is None else len(data.test_y)
        return Answer(opened.client, "done", RESULT.pack(version, count, scores["accuracy"], scores["loss"]))


def _trained(opened: Opened, trained: Trained, seconds: float) -> Answer:
    """The answer of a client that has trained: its new state is pending."""
    frame, pending, metrics = trained
    version = opened.held.version
    record = Record(version, opened.record.state, arrays_to_bytes(pending), version)
    times = {"client_decode": opened.seconds, "client_train": seconds}
    return Answer(opened.client, "done", frame, record, metrics={**metrics, **times})
