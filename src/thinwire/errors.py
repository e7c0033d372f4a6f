"""Every error that thinwire raises on purpose: one line that names what is wrong and what is allowed."""

from __future__ import annotations


class ThinwireError(Exception):
    """Base of all errors that thinwire raises on purpose."""


class ConfigError(ThinwireError, ValueError):
    """A setting is unknown or out of range: names the field, the value and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} = {value!r}: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class DataError(ThinwireError):
    """A data set, a partition or a file on disk cannot be used as asked."""


class TrainingError(ThinwireError):
    """Training cannot go on: the loss is not finite, or a round is left without an update."""


class QuorumError(TrainingError):
    """A round is left with fewer updates than it needs; the model stays as it was."""


class DecodeError(ThinwireError):
    """Bytes from outside are not what they must be; the message says in which way."""


class NeedKeyframe(ThinwireError):
    """The receiver does not hold the version that a step frame builds on; a keyframe mends it."""

    def __init__(self, base: int, held: int | None) -> None:
        super().__init__(f"step frame builds on version {base}, this client holds {held}: send a keyframe")
        self.base = base
        self.held = held


class NeedValues(NeedKeyframe):
    """The receiver's seed makes other values than the sender's; a keyframe that spells them out mends it."""

    def __init__(self) -> None:
        super().__init__(0, None)
        self.args = ("keyframe: the initial weights made here are not the sender's: send their values",)
