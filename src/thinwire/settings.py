"""Plain settings to frozen records: unknown keys and wrong types become one clear line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from thinwire.errors import ConfigError, unknown_field

T = TypeVar("T")


def record(kind: type[T], values: Mapping[str, Any], where: str, others: Sequence[str] = ()) -> T:
    """kind(**values), each value of the type of the field's default.

    Whole numbers serve as floats, lists as tuples. ConfigError names `where`.field, the value and what is allowed.
    others: names that may stand beside the fields, which the caller has taken out of `values`.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}.{name}", values[name], unknown_field(name, known, others))
    return kind(**{name: _fit(values[name], known[name].default, f"{where}.{name}") for name in values})


def _fit(value: Any, default: Any, field: str) -> Any:
    if isinstance(value, list):
        value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    plain = isinstance(default, bool | int | float | str | tuple)
    if default is not MISSING and plain and type(value) is not type(default):
        raise ConfigError(field, value, f"a value of type {type(default).__name__}")
    return value
