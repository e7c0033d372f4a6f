"""Every error that thinwire raises on purpose: one line that names what is wrong and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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


def one_of(value: object, names: Iterable[str], more: str = "") -> str:
    """What is allowed where one of some names may stand, with those nearest to what stands there.

    more: what else is allowed, behind the names.

    >>> one_of("fedavgg", ["fedavg", "fedpm"])
    'one of fedavg, fedpm; did you mean fedavg?'
    """
    known = list(names)
    return f"one of {', '.join(known)}{more}{did_you_mean(value, known)}"


def unknown_field(value: object, names: Iterable[str], others: Iterable[str] = ()) -> str:
    """What is allowed where a field has an unknown name. others: names that are not listed, but may be meant.

    >>> unknown_field("epoch", ["epochs", "lr"])
    'unknown field, known: epochs, lr; did you mean epochs?'
    """
    known = list(names)
    return f"unknown field, known: {', '.join(known) or 'none'}{did_you_mean(value, [*known, *others])}"


def did_you_mean(value: object, names: Iterable[str]) -> str:
    """'; did you mean …?' with up to three names that are spelt like the value; empty where none is.

    Of dotted names, the last parts are compared.
    """
    text, by_word = str(value).lower(), dict[str, str]()
    for name in names:
        by_word.setdefault(name.lower().rpartition(".")[2], name)
    near = [text] if text in by_word else get_close_matches(text, by_word, n=3, cutoff=0.65)
    return f"; did you mean {' or '.join(by_word[word] for word in near)}?" if near else ""


def line(error: BaseException) -> str:
    """What an error of someone else's code says, in one line of at most 200 characters: its type, then its words."""
    words = " ".join(str(error).split())
    return shown(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def shown(text: object, most: int = 200) -> str:
    r"""Text from outside as it may be logged, kept and printed: characters that print, and not too many of them.

    >>> shown("lost\x1b[2J\n")
    'lost\\x1b[2J\\n'
    """
    some = str(text)[: most + 1]
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in some)
    return plain if len(plain) <= most else plain[: most - 1] + "…"
