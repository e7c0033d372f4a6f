"""Codecs as plain configuration and back: {"id": "mask"} <-> Mask(). Nested codecs are nested dicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from functools import cache, lru_cache
from typing import Any
from zlib import crc32

from thinwire.codecs.base import CARRIED, Codec, carries
from thinwire.errors import ConfigError, one_of
from thinwire.settings import record


def to_config(codec: Codec) -> dict[str, Any]:
    """{'id': …, field: value, …} with every field, ready for JSON and TOML; None stands for a field left out."""
    values = {f.name: _plain(getattr(codec, f.name), f.default) for f in fields(codec)}  # type: ignore[arg-type]
    return {"id": codec.id} | {name: value for name, value in values.items() if value is not None}


def _plain(value: Any, default: Any = None) -> Any:
    """A field's value as JSON has it; keep=1 and keep=1.0 are one codec and must have one tag."""
    if isinstance(value, Codec):
        return to_config(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


MOST_NESTED = 64  # codecs in one configuration


def from_config(
    config: Mapping[str, Any], classes: Mapping[str, type[Codec]], dtype: str = "", others: Sequence[str] = ()
) -> Codec:
    """The codec that a configuration describes; ConfigError names an unknown id, an unknown field or a wrong type.

    Also for more than MOST_NESTED codecs: each takes its turn at the whole payload.
    dtype: of the arrays that the codec is for, where it is known: what an unknown id may be is then named by it.
    others: keys that may stand beside the codec's fields.
    """
    _check_nesting(config)
    return _built(config, classes, dtype, others)


def _check_nesting(config: Mapping[str, Any]) -> None:
    level: list[Any] = [config]
    number = 0
    for _ in range(2 * MOST_NESTED):  # a list may stand between two codecs
        number += sum(isinstance(part, Mapping) for part in level)
        inner = [part.values() if isinstance(part, Mapping) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, Mapping | list | tuple)]
        if number > MOST_NESTED or not level:
            break
    if number > MOST_NESTED or level:
        raise ConfigError("codec", f"more than {MOST_NESTED} in one another", f"at most {MOST_NESTED}")


def _built(
    config: Mapping[str, Any], classes: Mapping[str, type[Codec]], dtype: str = "", others: Sequence[str] = ()
) -> Codec:
    name = str(config.get("id"))
    if name not in classes:
        fitting = sorted(key for key, kind in classes.items() if not dtype or carries(kind) == CARRIED[dtype])
        raise ConfigError("codec id", name, one_of(name, fitting))
    dtypes = {field.name: _dtype(field) for field in fields(classes[name])}  # type: ignore[arg-type]
    values = {key: _nested(value, classes, dtypes.get(key, "")) for key, value in config.items() if key != "id"}
    return record(classes[name], values, where=name, others=("id", *others))


def _dtype(field: Field[Any]) -> str:
    """Of the codec, or of the codecs, that are a field's default; empty for another field."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    first = default[0] if isinstance(default, tuple) and default else default
    return first.dtype if isinstance(first, Codec) else ""


def _nested(value: Any, classes: Mapping[str, type[Codec]], dtype: str) -> Any:
    """A field's value with the codecs in it built."""
    if isinstance(value, Mapping):
        return _built(value, classes, dtype)
    return [_nested(item, classes, dtype) for item in value] if isinstance(value, list | tuple) else value


EXAMPLES = {
    "float32": "thin, topk, eden or float16 for example",
    "uint8": "mask, gaps or bitmap for example",
    "uint32": "votes, huffman or raw for example",
}


def require(field: str, codec: Any, dtype: str) -> None:
    """ConfigError unless a field holds a codec for arrays of this dtype, signs and all; it names some."""
    if isinstance(codec, type) or not isinstance(codec, Codec) or codec.dtype != dtype:
        raise ConfigError(field, getattr(codec, "id", codec), f"a codec for {dtype} arrays, {EXAMPLES[dtype]}")
    if carries(codec) != CARRIED[dtype]:
        allowed = f"a codec for {CARRIED[dtype]}, {EXAMPLES[dtype]}: {codec.id} is for {carries(codec)}"
        raise ConfigError(field, codec.id, allowed)


@lru_cache(maxsize=64)
def at(codec: Codec, round: int) -> Codec:
    """The codec of a round, counted from 0: every part with a schedule, a method `at`, takes that round's setting."""
    if hasattr(codec, "at"):
        return codec.at(round)
    parts = {f.name: _part_at(getattr(codec, f.name), round) for f in fields(codec)}  # type: ignore[arg-type]
    return replace(codec, **parts)  # type: ignore[type-var]


def _part_at(value: Any, round: int) -> Any:
    if isinstance(value, Codec):
        return at(value, round)
    return tuple(_part_at(item, round) for item in value) if isinstance(value, tuple) else value


@cache
def tag(codec: Codec) -> int:
    """What a frame says of its codec: 16 bits of the id's CRC-32, then 16 bits of the configuration's."""
    text = json.dumps(to_config(codec), sort_keys=True, separators=(",", ":"))
    return (crc32(codec.id.encode()) & 0xFFFF) << 16 | crc32(text.encode()) & 0xFFFF


def name_of(codec_tag: int, classes: Mapping[str, type[Codec]]) -> str:
    """The id of the codec whose tag starts like this one; 'unknown' if there is none."""
    return next((name for name in classes if crc32(name.encode()) & 0xFFFF == codec_tag >> 16), "unknown")
