"""Federated evaluation: every client scores what it holds on samples of its own that it never trained on.

A measurement, not a round. A client is sent the current global model as for a round, scores it together with its
personal part, answers with two numbers, and keeps nothing of it: the versions that clients hold, and with them every
byte of the rounds that follow, are those of a run without evaluation. All that crosses counts as evaluate_bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from pathlib import Path
from typing import Any

from thinwire.errors import DataError, DecodeError, TrainingError, shown
from thinwire.modelfile import save_bytes, sync_folder
from thinwire.runtime.claims import Claims
from thinwire.runtime.client import EVALUATE, RESULT, Answer
from thinwire.runtime.ledger import Round
from thinwire.runtime.link import Crossings
from thinwire.runtime.progress import Progress
from thinwire.runtime.round import LARGEST_LOSS, requested
from thinwire.runtime.simulate import Simulation

COLUMNS = ("client", "train_samples", "test_samples", "accuracy", "loss")


@dataclass(frozen=True)
class Score:
    """What one client's model reaches on the samples that it holds back."""

    client: int
    samples: int
    accuracy: float
    loss: float


@dataclass
class Evaluation:
    """Scores of the clients that answered, in the order asked; the others with the reason; all that crossed."""

    scores: list[Score] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    crossings: Crossings = field(default_factory=Crossings)

    def ask(
        self,
        simulation: Simulation,
        progress: Progress,
        asked: dict[int, int | None],
        again: Collection[int] = (),
    ) -> dict[int, int | None]:
        """Send to clients by the version that each holds, note what comes back. -> who asks for a keyframe.

        again: those that have asked for one before. TrainingError when a client's answer ends the run.
        """
        sending = simulation.send(progress, asked, EVALUATE)
        self.crossings.sent(sending.sizes)
        asking: dict[int, int | None] = {}
        for answer in sending.answers:
            if answer.status == "stop":
                raise TrainingError(answer.reason)
            self.crossings.received(answer.client, len(answer.frame))
            try:
                if answer.status == "keyframe" and answer.client not in again:
                    asking[answer.client] = requested(answer.frame)
                else:
                    self.scores.append(read_result(answer, simulation.method.version(progress.server)))
            except DecodeError as error:
                self.dropped.append({"client": answer.client, "reason": shown(f"evaluation: {error}")})
        return asking

    def bound(self, claims: Claims) -> None:
        """Drop the scores that are said to be over more samples than their clients may have: one would outweigh all."""
        said, scores = [score.samples for score in self.scores], self.scores
        self.scores = []
        for score in scores:
            if score.samples <= (most := claims.most(score.client, said)):
                self.scores.append(score)
            else:
                reason = f"evaluation: result: says it is over {score.samples} samples, at most {most} held back"
                self.dropped.append({"client": score.client, "reason": reason})

    @property
    def crossed_bytes(self) -> int:
        """All bytes, both directions."""
        return self.crossings.down.total() + self.crossings.up.total()

    def note(self, entry: Round) -> Round:
        """The round's line with what the evaluation cost and gave."""
        found = personal(self.scores)
        return replace(
            entry,
            dropped=entry.dropped + self.dropped,
            evaluate_bytes=entry.evaluate_bytes + self.crossed_bytes,
            total_bytes=entry.total_bytes + self.crossed_bytes,
            personal_accuracy=found["personal_accuracy"],
            personal_worst_decile=found["personal_worst_decile"],
        )


def evaluate_clients(
    simulation: Simulation, progress: Progress, clients: Sequence[int], claims: Claims | None = None
) -> Evaluation:
    """Have clients score the current model; one that cannot use the steps it is sent gets a keyframe.

    claims: how many samples of its own a client may score on; None: any number.
    """
    evaluation = Evaluation()
    asking = evaluation.ask(simulation, progress, {client: progress.have.get(client) for client in clients})
    if asking:
        evaluation.ask(simulation, progress, asking, again=asking)
    if claims:
        evaluation.bound(claims)
    return evaluation


def read_result(answer: Answer, version: int) -> Score:
    """The score in a client's answer; DecodeError when it is none, or of another version."""
    if answer.status != "done":
        raise DecodeError(answer.reason or "asked for a keyframe twice")
    if len(answer.frame) != RESULT.size:
        raise DecodeError(f"result: {len(answer.frame)} bytes, {RESULT.size} needed")
    scored, samples, accuracy, loss = RESULT.unpack(answer.frame)
    if scored != version:
        raise DecodeError(f"result: of version {scored}, not {version}")
    if not samples or not 0 <= accuracy <= 1:
        raise DecodeError(f"result: accuracy {accuracy} over {samples} samples")
    return Score(answer.client, samples, accuracy, loss if 0 <= loss <= LARGEST_LOSS else math.nan)


def personal(scores: Sequence[Score]) -> dict[str, float | int | None]:
    """The numbers of summary.json: means over clients, over the lowest ⌈10 %⌉ of them, and over all test samples."""
    ordered = sorted(score.accuracy for score in scores)
    total = sum(score.samples for score in scores)
    return {
        "personal_accuracy": _mean(ordered),
        "personal_worst_decile": _mean(ordered[: math.ceil(len(ordered) / 10)]),
        "personal_accuracy_weighted": fsum(s.accuracy * s.samples for s in scores) / total if total else None,
        "evaluated_clients": len(scores),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None


def write_scores(path: Path, scores: Iterable[Score], train_samples: Mapping[int, int]) -> None:
    """clients.csv, whole or not at all: a line per client, without a loss where it is not finite."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for score in scores:
        loss = score.loss if math.isfinite(score.loss) else ""
        writer.writerow((score.client, train_samples[score.client], score.samples, score.accuracy, loss))
    save_bytes(text.getvalue().encode(), path)
    sync_folder(path.parent)


def read_scores(path: Path) -> list[Score]:
    """Inverse of `write_scores`; DataError when it is not there or not what was written."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            Score(int(row["client"]), int(row["test_samples"]), float(row["accuracy"]), float(row["loss"] or math.nan))
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None
