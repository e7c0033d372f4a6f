"""Codecs as plain configuration and back: {"id": "mask"} <-> Mask(). Nested codecs are nested dicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from zlib import crc32

from thinwire.codecs.base import Codec
from thinwire.errors import ConfigError
from thinwire.settings import record


def to_config(codec: Codec) -> dict[str, Any]:
    """{'id': …, field: value, …} with every field, ready for JSON and TOML; None stands for a field left out."""
    values = {field.name: getattr(codec, field.name) for field in fields(codec)}  # type: ignore[arg-type]
    return {"id": codec.id} | {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Codec):
        return to_config(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_config(config: Mapping[str, Any], classes: Mapping[str, type[Codec]]) -> Codec:
    """The codec that a configuration describes; ConfigError names an unknown id, an unknown field or a wrong type."""
    name = str(config.get("id"))
    if name not in classes:
        raise ConfigError("codec id", name, f"one of {', '.join(sorted(classes))}")
    values = {key: _nested(value, classes) for key, value in config.items() if key != "id"}
    return record(classes[name], values, where=name)


def _nested(value: Any, classes: Mapping[str, type[Codec]]) -> Any:
    """A field's value with the codecs in it built."""
    if isinstance(value, Mapping):
        return from_config(value, classes)
    return [_nested(item, classes) for item in value] if isinstance(value, list) else value


def at(codec: Codec, round: int) -> Codec:
    """The codec of a round, counted from 0: every part with a schedule, a method `at`, takes that round's setting."""
    if hasattr(codec, "at"):
        return codec.at(round)
    nested = {f.name: getattr(codec, f.name) for f in fields(codec)}  # type: ignore[arg-type]
    changed = {name: at(part, round) for name, part in nested.items() if isinstance(part, Codec)}
    return replace(codec, **changed) if changed else codec  # type: ignore[type-var]


def tag(codec: Codec) -> int:
    """What a frame says of its codec: 16 bits of the id's CRC-32, then 16 bits of the configuration's."""
    text = json.dumps(to_config(codec), sort_keys=True, separators=(",", ":"))
    return (crc32(codec.id.encode()) & 0xFFFF) << 16 | crc32(text.encode()) & 0xFFFF


def name_of(codec_tag: int, classes: Mapping[str, type[Codec]]) -> str:
    """The id of the codec whose tag starts like this one; 'unknown' if there is none."""
    return next((name for name in classes if crc32(name.encode()) & 0xFFFF == codec_tag >> 16), "unknown")
