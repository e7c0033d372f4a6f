"""What a run reached and cost, as one number a column; means and intervals over seeds; the Pareto front.

`up_ratio`: 32 bits / mean bits per parameter up. `total_ratio`: 64 / (up + down). Bytes to a target: all traffic until
the end of the first round whose accuracy is at least the target; seconds to it: the same of `link_seconds`.
`accuracy_per_gbit`: 10⁹ · (accuracy − accuracy of the untrained model) / bits up, "per-bit accuracy" (Liu et al., M22,
arXiv 2301.09269, which leaves open what is compared; it says something only between runs of about as many bits).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from thinwire.report import Run
from thinwire.report.runs import total_bytes

Number = float | None
ACCURACIES = ("accuracy", "best_accuracy", "model_accuracy", "personal_accuracy")
COSTS = ("up_bytes", "down_bytes", "evaluate_bytes", "total_bytes", "mean_up_bpp", "mean_down_bpp")
STAGES = ("client_decode", "client_train", "server_encode", "server_decode")
BYTES_TO, SECONDS_TO = "bytes_to_", "seconds_to_"


def columns(targets: Sequence[float]) -> list[str]:
    """Names of all numbers of a run, in the order of the table."""
    bytes_to, seconds_to = ([_to(name, target) for target in targets] for name in (BYTES_TO, SECONDS_TO))
    stages, ratios = [f"{stage}_seconds" for stage in STAGES], ("up_ratio", "total_ratio")
    times = (*stages, "wall_seconds", "link_seconds", *seconds_to)
    return [*ACCURACIES, *COSTS, *ratios, *bytes_to, "accuracy_per_gbit", *times]


def _to(name: str, target: float) -> str:
    return f"{name}{target:.12g}"


def measure(run: Run, targets: Sequence[float]) -> dict[str, Number]:
    """Every number of a finished run by its column, None where its files do not have it."""
    up, down = run.summary["mean_up_bpp"], run.summary["mean_down_bpp"]
    found = {
        "total_bytes": total_bytes(run),
        "up_ratio": 32 / up if up else None,
        "total_ratio": 64 / (up + down) if up and down else None,
        "accuracy_per_gbit": _per_gbit(run),
        **{f"{stage}_seconds": _stage(run, stage) for stage in STAGES},
        **{_to(BYTES_TO, target): _bytes_to(run, target) for target in targets},
        **{_to(SECONDS_TO, target): _seconds_to(run, target) for target in targets},
    }
    return {key: found[key] if key in found else run.summary.get(key) for key in columns(targets)}


def _reached(run: Run, target: float) -> int | None:
    """How many rounds it takes to reach an accuracy; None if it never does."""
    return next((n for n, row in enumerate(run.rounds, 1) if (row["accuracy"] or 0) >= target), None)


def _bytes_to(run: Run, target: float) -> Number:
    rounds = _reached(run, target)
    return None if rounds is None else run.rounds[rounds - 1]["total_bytes"]


def _seconds_to(run: Run, target: float) -> Number:
    rounds = _reached(run, target)
    return None if rounds is None else _total([row["link_seconds"] for row in run.rounds[:rounds]])


def _stage(run: Run, stage: str) -> Number:
    """Seconds of a stage over all rounds and clients."""
    return _total([row["seconds"].get(stage) for row in run.rounds])


def _per_gbit(run: Run) -> Number:
    accuracy, initial, up = (run.summary.get(key) for key in ("accuracy", "initial_accuracy", "up_bytes"))
    return None if accuracy is None or initial is None or not up else 1e9 * (accuracy - initial) / (8 * up)


def _total(values: Sequence[Number]) -> Number:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def mean(values: Sequence[Number]) -> Number:
    """The mean; None unless there are values and every one is known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return fmean(known) if len(known) > 1 else known[0]


def interval(values: Sequence[Number]) -> Number:
    """Half the width of the 95 % interval of the mean: t · s / √n, t of Student with n − 1 degrees of freedom.

    s has n − 1 below it. None below two values, or where one is missing.
    """
    known = [value for value in values if value is not None]
    if len(known) < max(2, len(values)):
        return None
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.ppf(0.975, len(known) - 1)) * stdev(known) / sqrt(len(known))


def pareto(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Which of some (accuracy, bytes) are on the front: no other has as much for as little and one of the two better.

    None is on no front.
    """
    known = [point for point in points if point is not None]
    return [point is not None and not any(_beats(other, point) for other in known) for point in points]


def _beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
    return other[0] >= point[0] and other[1] <= point[1] and other != point
