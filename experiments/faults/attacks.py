"""What hostile clients do to the mean, and to each defence: `python -m experiments.faults.attacks` prints the table.

The setting is that of digits.toml. The last clients are hostile in every round: they train honestly, then change their
frame, checksum and all.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from thinwire import api
from thinwire import frame as frames
from thinwire.errors import ThinwireError
from thinwire.frame import Frame
from thinwire.runtime import run as runs
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import Answer, Clients
from thinwire.runtime.experiment import parse
from thinwire.runtime.pool import Inline, Task

SETTING = {
    "method": "fedavg", "data": "digits", "model": "mlp", "clients": 10, "rounds": 15, "batch_size": 16, "lr": 0.1,
    "evaluation.server_every": 15, "server.optimizer": "mean",
}  # fmt: skip
Attack = Callable[[Frame], Frame]


def with_values(change: Callable[[np.ndarray], np.ndarray], samples: int | None = None) -> Attack:
    """The attack that sends another change (n,) float32, and claims other samples."""

    def attack(frame: Frame) -> Frame:
        ((sort, payload),) = frame.sections
        values = change(np.frombuffer(payload, dtype="<f4")).astype("<f4")
        return replace(frame, sections=((sort, values.tobytes()),), samples=samples or frame.samples)

    return attack


def filled(value: float) -> Attack:
    """The same value everywhere."""
    return with_values(lambda x: np.full_like(x, value))


ATTACKS: dict[str, tuple[int, Attack]] = {
    "none": (0, lambda frame: frame),
    "1 of 10: opposite, claims 2²⁴ samples": (1, with_values(np.negative, samples=2**24)),
    "1 of 10: 3.4 · 10³⁸ everywhere": (1, filled(3.4e38)),
    "1 of 10: 10³⁰ everywhere": (1, filled(1e30)),
    "1 of 10: 10⁷ everywhere": (1, filled(1e7)),
    "1 of 10: 100 × its change": (1, with_values(lambda x: 100 * x)),
    "1 of 10: the opposite": (1, with_values(np.negative)),
    "3 of 10: the opposite": (3, with_values(np.negative)),
    "3 of 10: five times the opposite": (3, with_values(lambda x: -5 * x)),
}
DEFENCES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "fedadam": {"server.optimizer": "fedadam"},
    "max_update_norm 3": {"server.max_update_norm": 3.0},
    "median": {"server.aggregate": "median"},
    "trimmed mean 0.3": {"server.aggregate": "trimmed_mean", "server.trim": 0.3},
    "multi-Krum 3": {"server.aggregate": "multi_krum", "server.byzantine": 3},
}


class Hostile(Inline):
    """Clients in this process, of which the last `count` attack."""

    def __init__(self, assembly: Assembly, count: int, attack: Attack) -> None:
        super().__init__(Clients(assembly.method, assembly.client_data, assembly.run_id, assembly.evaluation_data))
        self.first, self.attack = len(assembly.clients) - count, attack

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers, those of the hostile changed."""
        for answer in super().answers(tasks, enough):
            hostile = answer.client >= self.first and answer.status == "done"
            yield replace(answer, frame=frames.write(self.attack(frames.read(answer.frame)))) if hostile else answer


def accuracy(attack: str, defence: str) -> float:
    """Of the server's model after the last round; NaN when the run could not go on."""
    experiment = parse(api.settings(**{**SETTING, **DEFENCES[defence]}))
    count, change = ATTACKS[attack]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = runs.start(experiment, Path(folder) / "run", connect=lambda a: Hostile(a, count, change))
        except ThinwireError:
            return math.nan
    return float(result.summary["accuracy"])


def main() -> None:
    """Print the table as Markdown; – where the run ended."""
    print(f"| | {' | '.join(DEFENCES)} |\n| --- |{' ---: |' * len(DEFENCES)}")
    for attack in ATTACKS:
        found = [accuracy(attack, defence) for defence in DEFENCES]
        print(f"| {attack} | {' | '.join('–' if math.isnan(a) else f'{100 * a:.2f}' for a in found)} |", flush=True)


if __name__ == "__main__":
    main()
