"""The client's end: a mod that decodes what comes from `Compressed`, calls on, and codes the app's reply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.constant import ErrorCode

from thinwire.codecs import Codec
from thinwire.errors import ConfigError, DecodeError, NeedKeyframe, ThinwireError
from thinwire.flower.dropin import memory as memories
from thinwire.flower.dropin import uplink
from thinwire.flower.dropin.downlink import Received, receive
from thinwire.flower.dropin.memory import Memory
from thinwire.flower.dropin.records import RECORD, ROUND, beside, frame_of, frame_record, pack, unpack
from thinwire.flower.dropin.terms import CodecLike, codec_of, describe
from thinwire.flower.dropin.uplink import Address

CARRIED = ("train", "evaluate")  # categories of messages that the pair codes; all others pass as they are
UNWRAPPED = "plain arrays: the server's strategy must be wrapped, thinwire.flower.Compressed(strategy, codec)"


def compress(codec: CodecLike, *, error_feedback: bool = True) -> Mod:
    """A mod for `ClientApp(mods=[...])` that sends updates through a codec. The server needs `Compressed`.

    codec: a codec, its id, or a configuration; the same as the server's. error_feedback: what coding loses is added
    to the node's next update, once the server has accepted the one that lost it (Seide et al., Interspeech 2014).
    The mod then keeps one or two vectors of the model's size in `context.state`, else nothing, unless the downlink is
    coded. With clipping or noise, put it first: `mods=[compress(...), fixedclipping_mod]`; where the clipping is to
    bound what leaves the node, choose error_feedback=False, for a residual would come on top of it.

    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[compress({"id": "stc", "keep": 0.01})])
    """
    return _Compress(codec_of(codec, "compress.codec"), error_feedback)


@dataclass(frozen=True)
class _Compress:
    codec: Codec
    error_feedback: bool

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Decode, call on, code. What goes wrong here becomes an error reply of one line."""
        if _category(message) not in CARRIED:
            return call_next(message, context)
        try:
            address, received, memory = self._open(message, context)
        except NeedKeyframe as need:
            return _reply(message, uplink.request(_address(message, need.run)))
        except ThinwireError as error:
            return _refusal(message, error)
        message.content = RecordDict({**pack(received.terms.manifest, received.arrays), **beside(message.content)})
        reply = call_next(message, context)
        try:
            return self._close(...)
        except ThinwireError as error:
            return _refusal(message, error)
