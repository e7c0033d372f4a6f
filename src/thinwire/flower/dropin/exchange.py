"""Exchange: the server's end of one run. What nodes were sent and hold, whose replies were taken, whose dropped."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore import log

from thinwire.codecs import Codec
from thinwire.errors import ConfigError, DecodeError, NeedKeyframe, TrainingError
from thinwire.flower.dropin.alike import NOTHING, Seen, Sign, odd_arrays, odd_metrics
from thinwire.flower.dropin.buffers import Name, buffers, check_matches, suspicion
from thinwire.flower.dropin.claims import Claims, Metrics
from thinwire.flower.dropin.downlink import Global, advance, first
from thinwire.flower.dropin.frozen import settled
from thinwire.flower.dropin.manifest import Manifest
from thinwire.flower.dropin.norm import Limit, leap, update_norm
from thinwire.flower.dropin.records import (
    Arrays,
    beside,
    check_names,
    frame_bytes,
    frame_of,
    frame_record,
    pack,
    unpack,
)
from thinwire.flower.dropin.terms import Terms, describe
from thinwire.flower.dropin.traffic import Dropped, Traffic, missed
from thinwire.flower.dropin.uplink import Address, Reply, decode
from thinwire.flower.dropin.words import LACKS_MOD, NEVER, OURS, RECORD, ROUND, category, is_carried

KEYFRAME_NEXT = "lacks the global model that the step builds on, gets a keyframe in the next round"
MOST_ERROR = 100.0  # that a node's own word on its NMSE counts for in the mean; 1 is to send nothing


@dataclass
class Taken:
    """Replies as the strategy may have them, what those that can be used hold, by their number, and who was dropped.

    nodes: those whose arrays came.
    """

    round: int
    messages: list[Message] = field(default_factory=list)
    seen: dict[int, Seen] = field(default_factory=dict)
    nodes: set[int] = field(default_factory=set)
    dropped: list[Dropped] = field(default_factory=list)

    def drop(self, number: int, reason: str) -> None:
        """Refuse a reply: the strategy has an error in its place."""
        metadata = self.messages[number].metadata
        self.seen.pop(number, None)
        self.dropped.append(Dropped(self.round, metadata.src_node_id, reason))
        failed = Error(ErrorCode.MOD_FAILED_PRECONDITION, f"{OURS}{self.dropped[-1].reason}")
        self.messages[number] = Message(error=failed, metadata=metadata)  # type: ignore[call-overload]

    @property
    def updates(self) -> list[Seen]:
        """What the replies with arrays hold."""
        return [reply for reply in self.seen.values() if reply.still is not None]

    def check(self) -> None:
        """TrainingError when replies were refused and no other is left, unless keyframes will mend it."""
        mends = any(drop.reason == KEYFRAME_NEXT for drop in self.dropped)
        if self.dropped and not mends and all(message.has_error() for message in self.messages):
            reasons = "; ".join(str(drop) for drop in self.dropped[:3])
            raise TrainingError(f"round {self.round}: no reply can be used ({reasons})")


@dataclass
class Exchange:
    """One run with its nodes: `send` codes a round's messages, `take` decodes the replies to them.

    have: version of the global model that each node proved to hold. accepted: round last accepted from each. asked:
    the model that each node was sent last. untouched: nodes that were sent messages of other categories only.
    traffic: of the last messages and of the replies to them. patterns: of buffers that the user names. buffers: names
    of all buffers so far. frozen: names of the arrays that no update of the round last accepted has changed, and how
    many updates that were. warned: what has been said once. claims: what nodes may say of themselves. alike: must the
    replies of a round be alike? category: of the last messages. usual: what most replies held when they were compared
    last, by category.
    """

    uplink: Codec
    downlink: Codec | None = None
    patterns: tuple[str, ...] = ()
    run: int = field(default_factory=lambda: secrets.randbits(32))
    model: Global | None = None
    have: dict[int, int] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    asked: dict[int, Global] = field(default_factory=dict)
    untouched: set[int] = field(default_factory=set)
    traffic: Traffic = field(default_factory=Traffic)
    buffers: set[Name] = field(default_factory=set)
    frozen: tuple[frozenset[Name], int] = (frozenset(), 0)
    warned: set[str] = field(default_factory=set)
    claims: Claims = field(default_factory=Claims)
    alike: bool = True
    category: str = "train"
    usual: dict[str, list[Sign]] = field(default_factory=dict)

    def send(self, round: int, messages: Iterable[Message]) -> list[Message]:
        """The messages, their arrays coded. Nodes that get the same arrays and hold the same version share a frame."""
        messages = list(messages)
        self.asked, self.traffic = {}, Traffic()
        models: dict[tuple[int, ...], Global] = {}
        frames: dict[tuple[int, int | None], ArrayRecord] = {}
        for message in filter(is_carried, messages):
            model, have = self._model(message.content, models), self.have.get(message.metadata.dst_node_id)
            if (id(model), have) not in frames:
                frames[id(model), have] = frame_record(model.message(have), f": {LACKS_MOD}")
            self._fill(message, model, frames[id(model), have], round)
        self.untouched = {message.metadata.dst_node_id for message in messages} - set(self.asked)
        return messages

    def _model(self, content: RecordDict, models: dict[tuple[int, ...], Global]) -> Global:
        """The global model that a message brings; the same records are looked at once."""
        key = tuple(id(record) for record in content.array_records.values())
        if key not in models:
            if models and self.downlink:
                allowed = "None for a strategy that sends nodes different arrays in one round"
                raise ConfigError("downlink", describe(self.downlink), allowed)
            terms, arrays = self._terms(*unpack(content))
            self.model = advance(self.model, terms, arrays) if self.model else first(self.run, terms, arrays)
            models[key] = self.model
        return models[key]

    def _terms(self, manifest: Manifest, arrays: Arrays) -> tuple[Terms, Arrays]:
        """What a message brings, and under which terms. What was a buffer once is one to the end of the run."""
        if manifest.items and not self.buffers:
            check_matches(self.patterns, manifest)
        if self.downlink and self.model:
            manifest, arrays = settled(self.model, *self.frozen, manifest, arrays)
        self.buffers |= set(buffers(manifest, arrays, self.patterns))
        for item, array in zip(manifest.items, arrays, strict=True):
            self._warn(item.label, suspicion(item, array))
        exact = tuple(number for number, item in enumerate(manifest.items) if item.name in self.buffers)
        return Terms(manifest, self.uplink, self.downlink, exact), arrays

    def _warn(self, subject: str, text: str | None) -> None:
        """Say it in the log, once for each subject."""
        if text and subject not in self.warned:
            self.warned.add(subject)
            log(WARNING, "thinwire: %s", text)

    def _fill(self, message: Message, model: Global, record: ArrayRecord, round: int) -> None:
        """Put a frame where the arrays were, under the first record's name: who looks for arrays there meets a hint."""
        check_names(message.content)
        node, name = message.metadata.dst_node_id, next(iter(message.content.array_records), RECORD)
        words = ConfigRecord({"round": round, "accepted": self.accepted.get(node, NEVER)})
        message.content = RecordDict({name: record, **beside(message.content), ROUND: words})
        self.asked[node], self.category = model, category(message)
        sent = len(frame_bytes(record)) + words.count_bytes()
        self.traffic += Traffic(down_bytes=sent, down_dense_bytes=model.terms.manifest.nbytes)

    def take(self, round: int, replies: Iterable[Message], limit: Limit | None) -> Taken:
        """The replies made whole; those that cannot be trusted are errors now."""
        taken = Taken(round)
        for number, reply in enumerate(replies):
            taken.messages.append(reply)
            if reply.metadata.src_node_id not in self.untouched:  # a node may call its reply what it likes
                self._check(taken, number, reply, limit)
        self._compare(taken)
        return taken

    def _check(self, taken: Taken, number: int, reply: Message, limit: Limit | None) -> None:
        """Make a reply whole, or drop it."""
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                self._check_error(node, reply.error.reason or "")
                return
            model, whole = self._open(Address(self.run, taken.round, node), reply, limit)
            if whole and node in taken.nodes:
                raise DecodeError("message: a second reply of this node")
            if whole:
                taken.nodes.add(node)
                reply.content = _content(whole, reply.content)
            manifest, still = (whole.manifest, whole.still) if whole else (NOTHING, None)
            metrics = reply.content.metric_records
            taken.seen[number] = Seen(node, model.terms.manifest, manifest, still, metrics)
        except NeedKeyframe:
            self.have.pop(node, None)
            taken.drop(number, KEYFRAME_NEXT)
        except DecodeError as error:
            taken.drop(number, str(error))

    def _compare(self, taken: Taken) -> None:
        """Drop replies whose claims are wrong, that are unlike most others, or that claim to weigh too much."""
        for judge in (self._wrong, self._odd_arrays, self._odd_metrics, self._excessive):
            for number, reason in judge(taken.seen).items():
                taken.drop(number, reason)

    def _wrong(self, seen: Mapping[int, Seen]) -> dict[int, str]:
        return self.claims.wrong(_metrics(seen))

    def _excessive(self, seen: Mapping[int, Seen]) -> dict[int, str]:
        return self.claims.excessive(_metrics(seen))

    def _odd_arrays(self, seen: Mapping[int, Seen]) -> dict[int, str]:
        name = f"{self.category} arrays"
        reasons, self.usual[name] = odd_arrays(seen, self.usual.get(name, ()))
        return reasons if self.alike else {}

    def _odd_metrics(self, seen: Mapping[int, Seen]) -> dict[int, str]:
        name = f"{self.category} metrics"
        reasons, self.usual[name] = odd_metrics(_metrics(seen), self.claims.key, self.usual.get(name, ()))
        return reasons if self.alike else {}

    def _open(self, address: Address, reply: Message, limit: Limit | None) -> tuple[Global, Reply | None]:
        """What a node was sent, and its arrays; None for a reply without arrays."""
        data, model = frame_of(reply.content), self.asked.get(address.node)
        if model is None:
            raise DecodeError("message: a reply where nothing was asked in this round")
        if data is None and reply.content.array_records:
            raise DecodeError(LACKS_MOD)
        whole = self._whole(address, model, data, limit) if data is not None else None
        self.have[address.node] = model.history.version
        return model, whole

    def _check_error(self, node: int, reason: str) -> None:
        """DecodeError when an error says that the node lacks the mod, or when it is the mod's own."""
        if LACKS_MOD in reason:
            raise DecodeError(LACKS_MOD)
        if reason.startswith(OURS):
            self.have.pop(node, None)
            raise DecodeError(reason.removeprefix(OURS))

    def _whole(self, address: Address, model: Global, data: bytes, limit: Limit | None) -> Reply:
        self.traffic += Traffic(up_bytes=len(data))
        whole = decode(address, model, data)
        if limit is not None and not (norm := update_norm(model, whole)) <= limit.norm:
            raise DecodeError(f"update: its norm is {norm:.6g}, at most {limit.norm:.6g} allowed{limit.hint}")
        if wrong := leap(model, whole):
            raise DecodeError(f"update: {wrong}")
        self.traffic += Traffic(up_dense_bytes=whole.manifest.nbytes)
        if whole.error is not None:
            self.traffic += Traffic(coded=1, error=min(whole.error, MOST_ERROR))
            self._warn("target", missed(self.uplink, whole.error, f"round {address.round}, node {address.node}"))
        return whole

    def accept(self, taken: Taken) -> None:
        """What the strategy has made use of; the nodes learn it with the next message."""
        self.accepted |= dict.fromkeys((reply.node for reply in taken.updates), taken.round)
        if still := [reply.still for reply in taken.updates if reply.still is not None]:
            self.frozen = frozenset.intersection(*still), len(still)


def _metrics(seen: Mapping[int, Seen]) -> dict[int, Metrics]:
    return {number: reply.metrics for number, reply in seen.items()}


def _content(whole: Reply, content: RecordDict) -> RecordDict:
    """A reply as the app made it."""
    others = beside(content)
    if twice := set(whole.manifest.records) & set(others):
        raise DecodeError(f"message: two records are called {min(twice)!r}")
    return RecordDict({**pack(whole.manifest, whole.arrays), **others})
