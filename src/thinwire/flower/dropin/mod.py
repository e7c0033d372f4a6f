"""The client's end: a mod that decodes what comes from `Compressed`, calls on, and codes the app's reply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.constant import ErrorCode

from thinwire.codecs import Codec, tag
from thinwire.errors import ConfigError, DecodeError, NeedKeyframe, ThinwireError
from thinwire.flower.dropin import memory as memories
from thinwire.flower.dropin import uplink
from thinwire.flower.dropin.downlink import Received, receive
from thinwire.flower.dropin.memory import Memory
from thinwire.flower.dropin.records import beside, check_names, frame_of, frame_record, pack, unpack
from thinwire.flower.dropin.terms import DEFAULT, CodecLike, codec_of, describe
from thinwire.flower.dropin.uplink import Address
from thinwire.flower.dropin.words import OURS, RECORD, ROUND, UNWRAPPED, category, is_carried
from thinwire.frame import read


def compress(codec: CodecLike = DEFAULT, *, error_feedback: bool | float = True) -> Mod:
    """A mod for `ClientApp(mods=[...])` that sends updates through a codec. The server needs `Compressed`.

    codec: a codec, its id, or a configuration; the same as the server's; `thin` unless given. error_feedback: what
    coding loses, or that share of it (0 to 1), is added to the node's next update, once the server has accepted the one
    that lost it (Seide et al., Interspeech 2014).
    The mod then keeps one or two vectors of the model's size in `context.state`, else nothing, unless the downlink is
    coded. With clipping or noise, put it first: `mods=[compress(...), fixedclipping_mod]`; where the clipping is to
    bound what leaves the node, choose error_feedback=False, for a residual would come on top of it.

    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[compress({"id": "stc", "keep": 0.01})])
    """
    if not isinstance(error_feedback, bool | int | float) or not 0 <= error_feedback <= 1:
        raise ConfigError("compress.error_feedback", error_feedback, "True, False, or a share from 0 to 1")
    return _Compress(codec_of(codec, "compress.codec"), error_feedback)


@dataclass(frozen=True, eq=False)
class _Job:
    """A message under way: where its reply belongs, what it gave, and the node's memory for its run."""

    address: Address
    received: Received
    memory: Memory
    train: bool


@dataclass(frozen=True)
class _Compress:
    codec: Codec
    error_feedback: bool | float

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Decode, call on, code. What goes wrong in between becomes an error reply of one line."""
        if not is_carried(message):
            return call_next(message, context)
        job = self._open(message, memories.load(context))
        if isinstance(job, Message):
            return job
        message.content = RecordDict(
            {**pack(job.received.terms.manifest, job.received.arrays), **beside(message.content)}
        )
        reply = call_next(message, context)
        try:
            memory = job.memory if reply.has_error() else self._code(job, reply)
        except ThinwireError as error:
            return _refusal(message, error)
        memories.save(context, memory)
        return reply

    def _open(self, message: Message, memory: Memory) -> _Job | Message:
        """The message decoded, or what to answer instead: a refusal, or that a keyframe is needed."""
        try:
            data, address, accepted = _letter(message)
            memory = memories.settle(memory, address.run, accepted)
            try:
                received = receive(data, memory.held)
            except NeedKeyframe:
                return Message(RecordDict({RECORD: frame_record(uplink.request(address))}), reply_to=message)
            self._agree(received)
        except ThinwireError as error:
            return _refusal(message, error)
        held = received.held if received.terms.downlink else None
        return _Job(address, received, replace(memory, held=held), category(message) == "train")

    def _agree(self, received: Received) -> None:
        """ConfigError unless the server expects updates in this mod's codec."""
        expected = received.terms.uplink
        if tag(expected) != tag(self.codec):
            raise ConfigError("codec", describe(self.codec), f"the server's strategy expects {describe(expected)}")

    def _code(self, job: _Job, reply: Message) -> Memory:
        """Put a frame where the reply's arrays were. -> the memory with what is lost pending."""
        check_names(reply.content)
        manifest, arrays = unpack(reply.content)
        if not manifest.records:
            return job.memory
        feedback = self.error_feedback and job.train
        residual, received = job.memory.residual if feedback else None, job.received
        update = uplink.encode(job.address, received.terms, received.arrays, manifest, arrays, residual)
        reply.content = RecordDict({RECORD: frame_record(update.frame), **beside(reply.content)})
        if not feedback or not update.change.size:
            return job.memory
        return replace(job.memory, pending=update.lost(self.error_feedback), pending_round=job.address.round)


def _letter(message: Message) -> tuple[bytes, Address, int]:
    """A message's frame, where its reply belongs, and the round last accepted from this node."""
    data, words = frame_of(message.content), dict(message.content.config_records.get(ROUND) or {})
    if data is None:
        raise DecodeError(UNWRAPPED)
    round, accepted = words.get("round"), words.get("accepted")
    if not isinstance(round, int) or not isinstance(accepted, int):
        raise DecodeError("message: says neither its round nor the last one accepted; another version of thinwire?")
    return data, Address(read(data).run, round, message.metadata.dst_node_id), accepted


def _refusal(message: Message, error: ThinwireError) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"{OURS}{error}"), reply_to=message)
