"""Parameterisations as plain configuration and back: {"name": "fedpara", "gamma": 0.1} <-> FedPara(gamma=0.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from thinwire.errors import ConfigError, one_of
from thinwire.parameterisations.kinds import FedPara, LowRank, Parameterisation, PFedPara, Tucker
from thinwire.settings import record

PARAMETERISATIONS: dict[str, type] = {kind.id: kind for kind in (FedPara, PFedPara, LowRank, Tucker)}


def from_config(config: Mapping[str, Any]) -> Parameterisation | None:
    """The parameterisation that a configuration describes, None for "dense"; ConfigError names what is wrong in it."""
    name = config.get("name")
    values = {key: value for key, value in config.items() if key != "name"}
    if name == "dense":
        for field in values:
            raise ConfigError(f"parameterisation.{field}", values[field], "no fields with name = 'dense'")
        return None
    if not isinstance(name, str) or name not in PARAMETERISATIONS:
        raise ConfigError("parameterisation.name", name, one_of(name, ["dense", *PARAMETERISATIONS]))
    return record(PARAMETERISATIONS[name], values, where="parameterisation", others=("name",))


def to_config(how: Parameterisation | None) -> dict[str, Any]:
    """{'name': …, field: value, …} with every field, ready for JSON and TOML."""
    if how is None:
        return {"name": "dense"}
    values = {field.name: getattr(how, field.name) for field in fields(how)}  # type: ignore[arg-type]
    return {"name": how.id} | {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
