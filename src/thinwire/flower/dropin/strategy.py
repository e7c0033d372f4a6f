"""The server's end: a wrapper that codes what any strategy sends and decodes what comes back to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    Result,
    Strategy,
)
from flwr.supercore import log

from thinwire.errors import ConfigError
from thinwire.flower.dropin.aggregate import Trial, chain
from thinwire.flower.dropin.buffers import checked_patterns
from thinwire.flower.dropin.claims import Claims
from thinwire.flower.dropin.exchange import Exchange, Taken
from thinwire.flower.dropin.norm import Limit
from thinwire.flower.dropin.terms import DEFAULT, CodecLike, codec_of, describe
from thinwire.flower.dropin.traffic import Dropped, Traffic

CLIP_ON_CLIENT = (DifferentialPrivacyClientSideFixedClipping, DifferentialPrivacyClientSideAdaptiveClipping)
NO_FEEDBACK = ", for clients clip: a residual comes on top, choose compress(..., error_feedback=False)"
ROUNDING = 1.001  # by so much may coding exceed the norm that clients have clipped to


class Compressed(Strategy):
    """Any strategy, its messages through codecs. The clients need `compress` with the same codec among their mods.

    strategy: FedAvg, FedProx, FedAdam, FedMedian, Krum, a wrapper for differential privacy, ...; it sees replies as
    if they had come uncoded. codec: of the updates; a codec, its id, or a configuration; `thin` unless given. It codes
    the change of all weights, arrays of real numbers with at least one axis, as one vector; what else there is travels
    exactly, all in one frame. `float32` without a downlink codec codes nothing, and the run is the same bit for bit.
    downlink: None sends all arrays exactly; a codec sends steps of one sequence of global models to nodes that hold a
    version of it, and a keyframe to others.
    exact: buffers, which travel exactly, are arrays of whole numbers, arrays that hold an infinity, and those with
    names such as running_var; for others give names or glob patterns, of the key or of record/key (`["*.centers"]`;
    arrays without names have the keys "0", "1", ...). The nodes learn them from the server.
    max_update_norm: replies whose weights change more are dropped. Where clients clip, their clipping norm unless
    given: coding comes after clipping and may exceed it.
    max_samples: replies that claim more of them, by the strategy's `weighted_by_key`, are dropped; None for ten times
    the median of the round, from three replies on; math.inf for any number.
    alike: replies that hold other arrays or metrics than most of the round are dropped. False for a strategy whose
    nodes may each reply with something else.

    dropped: every reply that was refused, with round, node and reason; the strategy sees an error in its place. A
    node that lost its global model is dropped for one round and gets a keyframe in the next. total: bytes so far;
    those of a round are in the aggregated metrics, `thinwire-up-bytes` and so on, as sums, and `thinwire-up-nmse`, the
    mean of what coding lost of each update. The log says once when a codec missed the error that it was asked for.
    An aggregate that is not finite is never sent: the round is undone, with all its replies dropped.

    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = Compressed(FedAvg(), {"id": "stc", "keep": 0.01})

    Raises:
        ConfigError: no such codec; a pattern of `exact` that names no array; or a strategy with a `start` of its own,
            whose loop would not run: derive it from Compressed instead.
        TrainingError: in a round, when replies were refused and none is left.
    """

    def __init__(
        self,
        strategy: Strategy,
        codec: CodecLike = DEFAULT,
        *,
        downlink: CodecLike | None = None,
        exact: Sequence[str] = (),
        max_update_norm: float | None = None,
        max_samples: float | None = None,
        alike: bool = True,
    ) -> None:
        if not isinstance(strategy, Strategy) or type(strategy).start is not Strategy.start:
            allowed = "a strategy of flwr.serverapp without a start() of its own; one with can derive from Compressed"
            raise ConfigError("strategy", type(strategy).__name__, allowed)
        if max_update_norm is not None and not max_update_norm > 0:
            raise ConfigError("max_update_norm", max_update_norm, "above 0, or None")
        if max_samples is not None and not max_samples > 0:
            raise ConfigError("max_samples", max_samples, "above 0, or None for ten times the median of a round")
        self.strategy = strategy
        self.codec = codec_of(codec, "codec")
        self.downlink = None if downlink is None else codec_of(downlink, "downlink")
        self.exact = checked_patterns("exact", exact)
        self.max_update_norm = max_update_norm
        self.max_samples = max_samples
        self.alike = alike
        self._begin()

    def _begin(self) -> None:
        self.dropped: list[Dropped] = []
        self.total = Traffic()
        claims = Claims(self._weighted_by, self.max_samples)
        self._exchange = Exchange(self.codec, self.downlink, self.exact, claims=claims, alike=self.alike)

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """A run from the beginning: `Strategy.start`, and what it has cost."""
        self._begin()
        result = super().start(*args, **kwargs)
        log(INFO, "thinwire: %s; %d replies dropped", self.total, len(self.dropped))
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages, coded."""
        messages = self.strategy.configure_train(server_round, arrays, config, grid)
        return self._exchange.send(server_round, messages)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages, coded."""
        messages = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return self._exchange.send(server_round, messages)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's aggregate of the decoded replies. Only if there is one, the nodes learn of it."""
        taken, result = self._aggregated("aggregate_train", server_round, replies)
        arrays, metrics = result or (None, None)
        if arrays is not None:
            self._exchange.accept(taken)
        return arrays, self._counted(server_round, "train", metrics)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The strategy's aggregate of the decoded replies."""
        _, metrics = self._aggregated("aggregate_evaluate", server_round, replies)
        return self._counted(server_round, "evaluate", metrics)

    def _aggregated(self, step: str, round: int, replies: Iterable[Message]) -> tuple[Taken, Any]:
        taken = self._exchange.take(round, replies, self._limit)
        try:
            taken.check()
            return taken, Trial(self.strategy, step, self._exchange.model)(taken)
        finally:
            self.dropped += taken.dropped

    @property
    def _weighted_by(self) -> str:
        """The metric by which the strategy weighs replies."""
        keys = (getattr(strategy, "weighted_by_key", None) for strategy in chain(self.strategy))
        return next((key for key in keys if isinstance(key, str)), Claims.key)

    @property
    def _limit(self) -> Limit | None:
        """The norm given, else the one that clients are told to clip to."""
        if self.max_update_norm is not None:
            return Limit(self.max_update_norm)
        for inner in chain(self.strategy):
            if isinstance(inner, CLIP_ON_CLIENT):
                return Limit(ROUNDING * inner.clipping_norm, NO_FEEDBACK)
        return None

    def _counted(self, round: int, what: str, metrics: MetricRecord | None) -> MetricRecord | None:
        """The metrics with the round's bytes, once; as they are when no message was coded."""
        traffic = self._exchange.traffic
        if not self._exchange.asked:
            return metrics
        self.total += traffic
        log(INFO, "thinwire: round %d, %s: %s; so far %s", round, what, traffic, self.total)
        return traffic.beside(metrics)

    def summary(self) -> None:
        """The strategy's summary and a line of ours."""
        self.strategy.summary()
        down = describe(self.downlink) if self.downlink else "exact"
        log(INFO, "\t└──> thinwire: up %s | down %s", describe(self.codec), down)
