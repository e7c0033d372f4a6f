"""The strategy's aggregate of a round, watched: it may raise, or be no number, and then it must not be sent to anyone.

A reply with which alone the strategy fails, while it does not with another one alone, is dropped, and the others are
aggregated again. Where no reply is to blame, what the strategy raises ends the run, for so it does without the pair; an
aggregate that is not finite undoes the round, or ends the run if each reply alone makes it so. After a failed try the
strategy holds again what it held at first, as far as that is in its attributes as numbers, arrays, records, lists and
dicts: moments that a failed try left behind would spoil all rounds to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from thinwire.errors import TrainingError, line
from thinwire.flower.dropin.downlink import Global
from thinwire.flower.dropin.exchange import Taken
from thinwire.flower.dropin.records import NPY

State = list[tuple[Strategy, dict[str, Any]]]  # attributes of a strategy, of the one that it wraps, and so on


@dataclass(frozen=True)
class Failure:
    """Why a try has failed. error: what the strategy raised; None where it gave what is not finite."""

    reason: str
    error: Exception | None = None


@dataclass(frozen=True)
class Trial:
    """One step of a strategy, `aggregate_train` or `aggregate_evaluate`, that may be tried again.

    model: what the nodes were sent. Its infinities, a mask's, may stay.
    """

    strategy: Strategy
    step: str
    model: Global | None

    def __call__(self, taken: Taken) -> Any:
        """What the strategy makes of the replies, once those with which it fails are dropped; None: undone."""
        before = [(strategy, _copied(vars(strategy))) for strategy in chain(self.strategy)]
        while isinstance(result := self._attempt(before, taken.round, taken.messages), Failure):
            _restore(before)
            alone = {number: self._alone(before, taken.round, taken.messages[number]) for number in taken.seen}
            failed = {number: made.reason for number, made in alone.items() if isinstance(made, Failure)}
            if not 0 < len(failed) < len(alone):
                return self._give_up(result, taken, with_each=len(failed) > 1)
            for number, reason in failed.items():
                taken.drop(number, f"reply: with it alone {reason}")
        return result

    def _alone(self, before: State, round: int, message: Message) -> Any:
        try:
            return self._attempt(before, round, [message])
        finally:
            _restore(before)

    def _attempt(self, before: State, round: int, messages: list[Message]) -> Any:
        try:
            result = getattr(self.strategy, self.step)(round, [_fresh(message) for message in messages])
        except Exception as error:  # whatever a strategy may raise
            return Failure(f"{self.step} raises {line(error)}", error)
        if self.step == "aggregate_train" and (where := self._not_finite(result[0], before)):
            return Failure(f"{self.step} gives NaN or infinite entries in {where}")
        return result

    def _give_up(self, failure: Failure, taken: Taken, with_each: bool) -> None:
        """Raise what is the strategy's own fault, as it does with each reply; else undo the round."""
        said = f"round {taken.round}: {type(self.strategy).__name__}.{failure.reason}"
        log(WARNING, "thinwire: %s", said)
        if failure.error:
            raise failure.error
        if with_each:
            raise TrainingError(f"{said}, whichever reply it has")
        log(WARNING, "thinwire: round %d is undone, the model stays as it was", taken.round)
        for number in list(taken.seen):
            taken.drop(number, f"round undone: {failure.reason}, with no single reply to blame")

    def _not_finite(self, arrays: ArrayRecord | None, before: State) -> str | None:
        """The first array of an aggregate, or of a strategy's attributes, with entries that are no numbers."""
        for key, held in (arrays or {}).items():
            if held.stype == NPY and _infinite(made := held.numpy()) and not self._is_mask(key, made):
                return repr(key)[:80]
        for strategy, attributes in before:
            for path, array in _arrays(vars(strategy)):
                if _infinite(array) and not self._is_mask(path[-1], array) and path not in _infinities(attributes):
                    return f"{type(strategy).__name__}.{path[0]}"
        return None

    def _is_mask(self, key: Any, array: np.ndarray) -> bool:
        """Is each entry that is not finite the infinity that was sent?"""
        items = self.model.terms.manifest.items if self.model else ()
        sent = [self.model.arrays[n] for n, item in enumerate(items) if item.key == key] if self.model else []
        bad = ~np.isfinite(array)
        return any(was.shape == array.shape and np.array_equal(array[bad], was[bad]) for was in sent)


def chain(strategy: Any) -> Iterator[Strategy]:
    """A strategy, the one that it wraps, and so on."""
    while isinstance(strategy, Strategy):
        yield strategy
        strategy = getattr(strategy, "strategy", None)


def _restore(before: State) -> None:
    for strategy, held in before:
        vars(strategy).clear()
        vars(strategy).update(_copied(held))


def _copied(value: Any) -> Any:
    """A value whose arrays and containers can change without the other's."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is dict:
        return {key: _copied(held) for key, held in value.items()}
    if type(value) is list:
        return [_copied(held) for held in value]
    return _record(value) if isinstance(value, ArrayRecord | MetricRecord | ConfigRecord) else value


def _record(record: Any) -> Any:
    copy = type(record)()
    for key, value in record.items():
        copy[key] = value
    return copy


def _fresh(message: Message) -> Message:
    """A message with records of its own: FedMedian takes the arrays out of those that it is given."""
    if message.has_error():
        return message
    content = RecordDict({name: _record(record) for name, record in message.content.items()})
    return Message(content=content, metadata=message.metadata)  # type: ignore[call-overload]


def _arrays(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """All numpy arrays in dicts and lists, with where they stand."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, dict | list):
        for key, held in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _arrays(held, (*path, key))


def _infinities(value: Any) -> set[tuple[Any, ...]]:
    return {path for path, array in _arrays(value) if _infinite(array)}


def _infinite(array: np.ndarray) -> bool:
    return array.dtype.kind in "fc" and not np.isfinite(array).all()
