"""What a run began with: its settings, digests of data and initial model, shapes. A resumed run must have the same.

checkpoint/origin.json is written before the first round. A run of before it existed has none, and is resumed unchecked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from thinwire.data import Dataset
from thinwire.data.dataset import Split
from thinwire.data.parts import Dealt, Parts
from thinwire.errors import ConfigError, DataError
from thinwire.modelfile import save_bytes, sync_folder
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.experiment import Experiment
from thinwire.runtime.folder import CHECKPOINT, CONFIG
from thinwire.tensors import digest

ORIGIN = "origin.json"
# What may change in config.toml: it shapes no frame and no model, or says what to do when a round cannot count.
FREE = (
    "rounds", "device", "versions", "checkpoint", "evaluation", "link", "local.together",
    "cohort.min_replies", "cohort.without_quorum", "cohort.tries", "cohort.round_timeout", "cohort.join_timeout",
    "cohort.worker_timeout", "cohort.keys",
)  # fmt: skip
Origin = dict[str, Any]


def write(out: Path, assembly: Assembly, experiment: Experiment) -> None:
    """Write down what a run begins with; `experiment`: as config.toml has it."""
    origin = {
        "settings": settings(experiment),
        "data": data(assembly.dataset),
        "partition": _partition(assembly.parts),
        "model": _shapes(assembly),
        "values": digest(_initial(assembly)).hex(),
    }
    folder = out / CHECKPOINT
    folder.mkdir(exist_ok=True)
    save_bytes(json.dumps(origin).encode(), folder / ORIGIN)
    sync_folder(folder)


def read(out: Path) -> Origin | None:
    """What `write` wrote; None for a run without it. DataError when the file is broken."""
    path = out / CHECKPOINT / ORIGIN
    try:
        found = json.loads(path.read_bytes())
        parts = [found[name] for name in ("settings", "data", "model")]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("not what was written")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        gone = "without the file, the run goes on and nothing is compared"
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}); {gone}") from None
    return dict(found)


def settings(experiment: Experiment) -> dict[str, Any]:
    """The settings that shape a run, by dotted key."""
    plain = json.loads(json.dumps(experiment.model_dump()))
    flat = dict(_flat(plain))
    return {key: value for key, value in flat.items() if not f"{key}.".startswith(tuple(f"{free}." for free in FREE))}


def _flat(nested: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        elif value not in (None, {}):  # which config.toml does not have
            yield before + key, value


def check_settings(origin: Origin, out: Path, experiment: Experiment) -> None:
    """ConfigError names the first setting of config.toml that is another one now."""
    defaults = settings(Experiment())  # of a setting that the version which began the run did not have
    began, now = defaults | origin["settings"], defaults | settings(experiment)
    changed = [key for key in sorted({*began, *now}) if began.get(key) != now.get(key)]
    if changed:
        key, more = changed[0], f" ({', '.join(changed[1:])} changed too)" if changed[1:] else ""
        before = repr(began[key]) if key in began else "not set"
        allowed = f"{before}, as when the run began{more}; other settings need a new run"
        raise ConfigError(f"{out / CONFIG}: {key}", now.get(key), allowed)


def data(dataset: Dataset) -> dict[str, Any]:
    """Digests of all samples and targets."""
    return {"train": _split(dataset.train), "test": _split(dataset.test), "classes": dataset.classes}


def _split(split: Split) -> dict[str, Any]:
    return {
        "samples": len(split), "shape": list(split.x.shape[1:]), "x": _digest(split.x), "y": _digest(split.y)
    }  # fmt: skip


def _digest(array: np.ndarray) -> str:
    """SHA-256 of dtype, shape and entries, cut to 16 bytes.  # any array -> 32 hex digits"""
    head = f"{array.dtype.str}{array.shape}".encode()
    return sha256(head + b"\0" + sha256(np.ascontiguousarray(array).data).digest()).hexdigest()[:32]


def check_data(origin: Origin, out: Path, dataset: Dataset) -> None:
    """DataError when the data are not those that the run began with; it names the first difference."""
    began, now = origin["data"], data(dataset)
    if began == now:
        return
    raise DataError(f"{out}: the data {dataset.name} are not those that the run began with: {_change(began, now)}")


def _change(began: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first difference, in words."""
    for part in ("train", "test"):
        before, after = began[part], now[part]
        if before["samples"] != after["samples"]:
            return f"{part} had {before['samples']} samples and has {after['samples']}"
        if before["shape"] != after["shape"]:
            return f"samples of {part} had shape {tuple(before['shape'])} and have {tuple(after['shape'])}"
        if before["x"] != after["x"]:
            return f"x of {part} has changed"
        if before["y"] != after["y"]:
            return f"labels of {part} have changed"
    return f"there were {began['classes']} classes and are {now['classes']}"


def _partition(parts: Parts) -> str | None:
    """A digest of who has which samples; None where they are drawn by the seed when a client is asked."""
    if not isinstance(parts, Dealt):
        return None
    sizes = np.array([len(rows) for rows in parts.rows], dtype=np.int64)
    return _digest(np.concatenate([sizes, *parts.rows]))


def _initial(assembly: Assembly) -> nn.Module:
    return assembly.method.model(assembly.method.init())


def _shapes(assembly: Assembly) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in _initial(assembly).state_dict().items()}


def check_parts(origin: Origin, out: Path, assembly: Assembly) -> None:
    """DataError when samples are dealt otherwise than when the run began."""
    if origin.get("partition") != _partition(assembly.parts):
        spec = assembly.experiment.data.partition
        why = f"partition {spec} deals the samples otherwise than when the run began"
        raise DataError(f"{out}: {why}: another column, or another version of flwr-datasets")


def check_model(origin: Origin, assembly: Assembly) -> None:
    """ConfigError when the model has other tensors, or other values before training, than when the run began."""
    began, now = origin["model"], _shapes(assembly)
    source, allowed = assembly.experiment.model.source, "the model that the run began with"
    if list(began) != list(now) or began != now:
        name = next((name for name in [*now, *began] if began.get(name) != now.get(name)), "")
        had, has = (f"shape {tuple(shapes[name])}" if name in shapes else "none" for shapes in (began, now))
        what = f"tensor {name}: {has}, {had} when the run began" if name else "tensors in another order"
        raise ConfigError("model", source, f"{allowed} ({what})")
    if "values" in origin and origin["values"] != digest(_initial(assembly)).hex():
        why = "its initial or frozen values are others: its function has changed, or a file that it reads, or torch"
        raise ConfigError("model", source, f"{allowed} ({why})")
