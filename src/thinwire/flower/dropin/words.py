"""The names that both ends of the pair use, and the texts that either side shows of the other."""

from __future__ import annotations

from flwr.app import Message

RECORD, KEY = "thinwire", "frame"  # ArrayRecord of a frame, and its one Array
ROUND = "thinwire-round"  # ConfigRecord beside a frame: this round, and the last one accepted from the node
STYPE = "thinwire.frame"  # in front of the serialisation type of every frame
OURS = "thinwire: "  # in front of every error of the pair's own
NEVER = -1  # where a round would stand

LACKS_MOD = "its ClientApp lacks mods=[thinwire.flower.compress(...)]"
UNWRAPPED = "plain arrays: the server's strategy must be wrapped, thinwire.flower.Compressed(strategy, codec)"


def category(message: Message) -> str:
    """What stands before the action in a message's type."""
    return message.metadata.message_type.split(".")[0]


def is_carried(message: Message) -> bool:
    """Is it one of the messages that the pair codes? All others pass as they are."""
    return category(message) in ("train", "evaluate")
