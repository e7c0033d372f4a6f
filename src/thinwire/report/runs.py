"""A run folder read back: `config.toml`, `rounds.jsonl` and, once the run is done, `summary.json`."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.errors import DataError, shown
from thinwire.files import check_folder
from thinwire.report.personal import Client, read_clients

SUMMARY_NUMBERS = (
    "parameters",
    "clients",
    "rounds",
    "accuracy",
    "diverged_in_round",
    "best_accuracy",
    "model_accuracy",
    "up_bytes",
    "down_bytes",
    "evaluate_bytes",
    "mean_up_bpp",
    "mean_down_bpp",
    "last_up_bpp",
    "link_seconds",
    "initial_accuracy",
    "model_bytes",
    "model_bpp",
    "wall_seconds",
    "personal_accuracy",
    "personal_worst_decile",
    "personal_accuracy_weighted",
    "evaluated_clients",
)
DENSITY = "model_density"  # of a summary: fraction of each weight tensor's entries that are not 0; {} if none is 0
ROUND_NUMBERS = (
    "accuracy",
    "loss",
    "up_bytes",
    "down_bytes",
    "evaluate_bytes",
    "up_bpp",
    "down_bpp",
    "up_bpp_marginal",
    "total_bytes",
    "clients",
    "personal_accuracy",
    "personal_worst_decile",
    "link_seconds",
    "nmse",
    "worst_nmse",
    "missed",
)
ROUND_TABLES = ("seconds", "up_by_sort", "down_by_sort", "up_parts")  # numbers by name
ROUND_NEEDS = ("accuracy", "up_bytes", "down_bytes", "total_bytes")  # what a line of another version may lack
NAME_FIELDS = {
    "method": ("name",),
    "uplink": ("id",),
    "downlink": ("id",),
    "data": ("name", "path", "load"),
    "model": ("name", "build"),
}

Tell = Callable[[str], None]  # one line about what is left out, and why


@dataclass(frozen=True)
class Run:
    """One run as its files tell it.

    `summary` holds the keys of `summary.json`; for an unfinished run those that the configuration and the finished
    rounds give. `rounds` has one dict a finished round. A number that is absent or not finite is None in both, an
    absent table of numbers by name {}.
    `clients` are those of the last federated evaluation, by ascending accuracy. `remarks`: what was left out, and why.
    """

    path: Path
    config_text: str
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    finished: bool = True
    clients: Sequence[Client] = ()
    remarks: Sequence[str] = ()


def read_run(path: str | Path) -> Run:
    """Read one run folder; a run without `summary.json` counts as unfinished.

    Raises:
        DataError: the folder or one of its files is missing or broken; one line that names it and says how.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a run folder")
    check_folder(folder)
    config_text = _text(folder / "config.toml")
    config = _config(config_text, folder / "config.toml")
    rounds, remarks, diverged = _rounds(folder / "rounds.jsonl")
    clients = read_clients(folder / "clients.csv")
    summary_file = folder / "summary.json"
    if not summary_file.exists():
        so_far = _summary_so_far(config, rounds) | {"diverged_in_round": diverged}
        return Run(folder, config_text, so_far, rounds, False, clients, remarks)
    summary = _with_numbers(_object(_text(summary_file), str(summary_file)), SUMMARY_NUMBERS, str(summary_file))
    if summary["diverged_in_round"] is None:  # a summary of before has no word of it
        summary["diverged_in_round"] = diverged
    summary[DENSITY] = _table(summary.get(DENSITY) or {}, f"{summary_file}, {DENSITY}")
    return Run(folder, config_text, summary, rounds, True, clients, remarks)


def read_runs(paths: Iterable[str | Path], tell: Tell) -> list[Run]:
    """Read those of some run folders that can be read; `tell` hears what is left out, a folder or a line, and why.

    Raises:
        DataError: not one can be read.
    """
    runs, broken = list[Run](), list[str]()
    for path in paths:
        try:
            runs.append(read_run(path))
        except DataError as error:
            broken.append(str(error))
    if not runs:
        raise DataError("; ".join(broken))
    for reason in [*broken, *(remark for run in runs for remark in run.remarks)]:
        tell(reason)
    return runs


def total_bytes(run: Run) -> int | None:
    """All bytes of a run, both directions and evaluation broadcasts; None where the run says nothing of bytes."""
    parts = [run.summary.get(key) for key in ("up_bytes", "down_bytes", "evaluate_bytes")]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: missing") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode()
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text") from None


def _config(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not TOML ({error})") from None


def _object(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not JSON") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object")
    return value


def _is_json(line: bytes) -> bool:
    try:
        _object(line, "")
    except DataError:
        return False
    return True


def _rounds(file: Path) -> tuple[list[dict[str, Any]], list[str], int | None]:
    """Read the lines of a ledger. -> its rounds, remarks, the first round in which the model had diverged

    A last line that a crash has cut and lines of other versions are only remarked on.
    """
    *lines, last = _bytes(file).split(b"\n")
    remarks = []
    if _is_json(last):  # no beginning of an object is JSON, so this one is whole and lacks nothing but its line end
        lines.append(last)
    elif last.strip():
        remarks = [f"{file}, line {len(lines) + 1}: cut in the middle"]
    places = {f"{file}, line {number}": line for number, line in enumerate(lines, 1) if line.strip()}
    objects = {where: _object(line, where) for where, line in places.items()}
    rows = {where: _round(row, where) for where, row in objects.items()}
    out_of_order = [where for number, (where, row) in enumerate(rows.items(), 1) if row["round"] != number]
    remarks += [
        f"{where}: is of round {rows[where]['round']}, lines must count 1, 2, 3 …" for where in out_of_order[:1]
    ]
    lacking = {where: tuple(key for key in ROUND_NEEDS if key not in row) for where, row in objects.items()}
    for keys, count in Counter(lacking.values()).items():
        remarks += [f"{file}: {count} of {len(rows)} lines, without {', '.join(keys)}"] if keys else []
    diverged = (row["round"] for where, row in rows.items() if "loss" in objects[where] and _diverged(row))
    return [row for where, row in rows.items() if not lacking[where]], remarks, next(diverged, None)


def _round(row: dict[str, Any], where: str) -> dict[str, Any]:
    row = _with_numbers(row, ROUND_NUMBERS, where)
    if not isinstance(row.get("round"), int):
        raise DataError(f"{where}: round = {row.get('round')!r} is not a whole number")
    row |= {key: _table(row.get(key) or {}, f"{where}, {key}") for key in ROUND_TABLES}
    row["dropped"] = row.get("dropped") or []
    if not isinstance(row["dropped"], list) or not all(isinstance(entry, dict) for entry in row["dropped"]):
        raise DataError(f"{where}: dropped is not a list of objects")
    return row


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not an object of names and numbers")
    return _with_numbers({shown(name): number for name, number in value.items()}, tuple(map(shown, value)), where)


def _with_numbers(row: Mapping[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """Copy `row` with every one of `keys` a finite number or None, so that no reader has to look again."""
    return {**row, **{key: _number(row.get(key), f"{where}: {key}") for key in keys}}


def _number(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where} is not a number")
    return value if -1e300 < value < 1e300 else None  # a diverged loss is NaN; it has no place on an axis


def _summary_so_far(config: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give what an unfinished run already knows, under the keys of `summary.json`."""
    accuracies = _column(rounds, "accuracy")
    up_bpps, down_bpps = _column(rounds, "up_bpp"), _column(rounds, "down_bpp")
    totals = {key: sum(_column(rounds, key)) for key in ("up_bytes", "down_bytes", "evaluate_bytes")}
    return {
        **dict.fromkeys(SUMMARY_NUMBERS),
        **_names(config),
        **totals,
        DENSITY: {},
        "rounds": len(rounds),
        "accuracy": accuracies[-1] if accuracies else None,
        "best_accuracy": max(accuracies, default=None),
        "mean_up_bpp": _mean(up_bpps),
        "mean_down_bpp": _mean(down_bpps),
        "last_up_bpp": up_bpps[-1] if up_bpps else None,
    }


def _diverged(row: Mapping[str, Any]) -> bool:
    """Was the model scored after this round, and its loss not finite?"""
    return row["loss"] is None and row["accuracy"] is not None


def divergence(round: int | None) -> str:
    """What there is to say when a model has diverged in a round; empty where none has."""
    what = "the loss of the server's model is not finite; lower local.lr"
    return f"training diverged in round {round}: {what}" if round else ""


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """Find what a run calls its method, codecs, data and model in an experiment file."""
    names = {}
    for table, fields in NAME_FIELDS.items():
        section = config.get(table)
        known = [section[field] for field in fields if field in section] if isinstance(section, dict) else []
        if known:
            names[table] = str(known[0])
    return names


def _column(rounds: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rounds if row[key] is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
