"""Frozen records as bytes and back: server and client states for checkpoints and pipes. Arrays and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from thinwire.errors import DecodeError


def arrays_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as safetensors; no bytes at all for none."""
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}) if arrays else b""


def arrays_from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """Inverse of `arrays_to_bytes`."""
    if not data:
        return {}
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise DecodeError(f"state: not safetensors ({error})") from None


def record_to_bytes(state: Any, seal: bytes | None = None) -> bytes:
    """A frozen record of arrays, bytes, numbers, tuples and records like it; sealed, with a digest beside them."""
    arrays: dict[str, np.ndarray] = {}
    tree = _flatten(state, "state", arrays)
    arrays["tree"] = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    if seal is not None:
        arrays["digest"] = np.frombuffer(_digest(arrays, seal), dtype=np.uint8)
    return arrays_to_bytes(arrays)


def record_like(example: Any, data: bytes, seal: bytes | None = None) -> Any:
    """The record that the bytes hold, of the types of an example (a method's initial state).

    DecodeError when they are not of such a record, or not what was sealed with the same bytes.
    """
    arrays = arrays_from_bytes(data)
    if seal is not None:
        digest = arrays.pop("digest", None)
        if digest is None or digest.tobytes() != _digest(arrays, seal):
            raise DecodeError("state: its digest does not match")
    try:
        tree = json.loads(arrays["tree"].tobytes())
        return _unflatten(tree, example, arrays)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DecodeError(f"state: not of this method ({error})") from None


def not_finite(state: Any) -> str:
    """Where a frozen record holds NaN or infinity: the name of its first such array; empty if nowhere."""
    arrays: dict[str, np.ndarray] = {}
    _flatten(state, "state", arrays)
    bad = (path for path, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all())
    return next(bad, "").removeprefix("state.")


def outline(value: Any) -> Any:
    """Names, types and shapes of what a record holds, as JSON has them: what tells one model's records from another's.

    >>> outline({"w": np.zeros((2, 3), np.float32), "rest": (b"ab", 1)})
    {'rest': ['2 bytes', 'int'], 'w': 'float32 [2, 3]'}
    """
    if is_dataclass(value):
        return {f.name: outline(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: outline(part) for name, part in sorted(value.items())}
    if isinstance(value, tuple):
        return [outline(item) for item in value]
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__


def _digest(arrays: Mapping[str, np.ndarray], seal: bytes) -> bytes:
    """SHA-256 of names, types, shapes and entries, behind a seal."""
    found = sha256(seal)
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def _flatten(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if is_dataclass(value):
        return {f.name: _flatten(getattr(value, f.name), f"{path}.{f.name}", arrays) for f in fields(value)}
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, bytes):
        arrays[path] = np.frombuffer(value, dtype=np.uint8)
        return {"bytes": path}
    if isinstance(value, tuple):
        return [_flatten(item, f"{path}.{index}", arrays) for index, item in enumerate(value)]
    return value


def _unflatten(tree: Any, example: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if is_dataclass(example) and not isinstance(example, type):
        parts = {f.name: _unflatten(tree[f.name], getattr(example, f.name), arrays) for f in fields(example)}
        return type(example)(**parts)
    if isinstance(tree, dict):
        return arrays[tree["array"]] if "array" in tree else arrays[tree["bytes"]].tobytes()
    if isinstance(tree, list):
        return tuple(_unflatten(item, None, arrays) for item in tree)
    return tree
