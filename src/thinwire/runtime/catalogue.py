"""What there is: methods, presets, codecs, models, data sets, one line each."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from thinwire import codecs as _codecs
from thinwire import models as _models
from thinwire.data import DATASETS
from thinwire.errors import ConfigError, one_of
from thinwire.methods import DEFAULTS, METHODS, PRESETS


def first_line(thing: Any) -> str:
    """First line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


def methods() -> list[tuple[str, str]]:
    """(name, what it is); a preset is shown as what it stands for."""
    rows = [(name, first_line(import_module(builder.__module__))) for name, builder in METHODS.items()]
    return rows + [(name, f"preset of {method_name(name)}: `thinwire methods {name}` prints it") for name in PRESETS]


def method_name(preset: str) -> str:
    """The method that a preset builds on."""
    return str(PRESETS[preset]["method"]["name"])


def method_toml(name: str) -> str:
    """The experiment fragment that a method or a preset stands for."""
    import tomli_w

    if name not in METHODS and name not in PRESETS:
        raise ConfigError("method", name, one_of(name, sorted([*METHODS, *PRESETS])))
    return tomli_w.dumps(PRESETS.get(name) or {"method": {"name": name}, **DEFAULTS.get(name, {})}).strip()


def codecs() -> list[tuple[str, str, str, str]]:
    """(id, what it is for and the dtype of that, its fields and their defaults, what it is)."""
    return [
        (name, f"{_codecs.carries(kind)}, {kind.dtype}", _fields(kind()), first_line(kind))
        for name, kind in _codecs.CODECS.items()
    ]


def _fields(codec: _codecs.Codec) -> str:
    """Fields with their values, None where there is none; a nested codec by its id."""
    config = _codecs.to_config(codec)
    return " ".join(f"{f.name}={_short(config.get(f.name))}" for f in fields(codec))  # type: ignore[arg-type]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_short, value)) + "]"
    return str(value["id"] if isinstance(value, dict) else value)


def models() -> list[tuple[str, str, str]]:
    """(name, parameters at the paper's size, what it is)."""
    rows = []
    for name, build in _models.MODELS.items():
        count = sum(parameter.numel() for parameter in build().parameters())
        rows.append((name, f"{count:,}", first_line(build)))
    return rows


def datasets() -> list[tuple[str, str]]:
    """(name, what it is)."""
    return [(name, info.description) for name, info in DATASETS.items()]
