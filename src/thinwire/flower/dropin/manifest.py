"""Manifest: which arrays a message holds, by record, key, dtype and shape. As JSON it may come from anyone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from thinwire.errors import DecodeError

FLOATS = ("float16", "float32", "float64")
NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    *FLOATS, "complex64", "complex128",
)  # fmt: skip
MOST_AXES = 32
MOST_ENTRIES = 2**48
Plain = Any  # what JSON has


@dataclass(frozen=True)
class Item:
    """One array of an ArrayRecord."""

    record: str
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def name(self) -> tuple[str, str]:
        """What no other array of a message has: record and key."""
        return self.record, self.key

    @property
    def label(self) -> str:
        """The name for messages: on one line, whoever chose it."""
        return repr(f"{self.record}/{self.key}")

    @property
    def nbytes(self) -> int:
        """Bytes of the array as it is."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def floating(self) -> bool:
        """Is it of real numbers?"""
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Manifest:
    """Names of the ArrayRecords in order, empty ones too, and all their arrays, record by record."""

    records: tuple[str, ...]
    items: tuple[Item, ...]

    @cached_property
    def by_name(self) -> dict[tuple[str, str], int]:
        """Number of each array by record and key."""
        return {item.name: number for number, item in enumerate(self.items)}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays as they are."""
        return sum(item.nbytes for item in self.items)

    @property
    def by_record(self) -> dict[str, list[Item]]:
        """The arrays of each record, in order."""
        groups: dict[str, list[Item]] = {record: [] for record in self.records}
        for item in self.items:
            groups[item.record].append(item)
        return groups


def merged(records: Iterable[str], items: Sequence[Item]) -> Manifest:
    """The manifest of items that come in any order of records; DecodeError when two of them have one name."""
    groups = Manifest(tuple(dict.fromkeys(records)), tuple(items)).by_record
    manifest = Manifest(tuple(groups), tuple(item for group in groups.values() for item in group))
    if len(manifest.by_name) != len(manifest.items):
        raise DecodeError("manifest: two arrays of one record have the same key")
    return manifest


def to_plain(manifest: Manifest) -> Plain:
    """[[record, [[key, dtype, shape], ...]], ...]."""
    groups = manifest.by_record.items()
    return [[record, [[item.key, item.dtype, list(item.shape)] for item in items]] for record, items in groups]


def from_plain(plain: Plain) -> Manifest:
    """Inverse of `to_plain`; DecodeError names what is wrong."""
    pairs = [_pair(entry) for entry in listed(plain)]
    records = [record for record, _ in pairs]
    if len(set(records)) != len(records):
        raise DecodeError("manifest: two records have the same name")
    return merged(records, [_item(record, described) for record, arrays in pairs for described in arrays])


def _pair(entry: Plain) -> tuple[str, list[Plain]]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise DecodeError("manifest: a record is [name, arrays]")
    return entry[0], listed(entry[1])


def _item(record: str, described: Plain) -> Item:
    if not isinstance(described, list) or len(described) != 3 or not isinstance(described[0], str):
        raise DecodeError("manifest: an array is [key, dtype, shape]")
    key, dtype, shape = described
    return Item(record, key, checked_dtype(dtype), _shape(shape))


def checked_dtype(dtype: Plain) -> str:
    """The name itself; DecodeError when it is none of NUMBERS."""
    if not isinstance(dtype, str) or dtype not in NUMBERS:
        raise DecodeError(f"manifest: dtype {dtype!r:.40}, one of {', '.join(NUMBERS)} expected")
    return dtype


def _shape(shape: Plain) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(is_count(axis) for axis in shape):
        raise DecodeError(f"manifest: a shape has at most {MOST_AXES} whole numbers from 0 on")
    if prod(axis or 1 for axis in shape) > MOST_ENTRIES:  # numpy refuses some shapes with a 0 in them, too
        raise DecodeError(f"manifest: a shape of more than {MOST_ENTRIES} entries")
    return tuple(shape)


def is_count(number: Plain) -> bool:
    """Is it a whole number from 0 on?"""
    return type(number) is int and number >= 0


def listed(plain: Plain) -> list[Plain]:
    """The list itself; DecodeError when it is none."""
    if not isinstance(plain, list):
        raise DecodeError("manifest: a list expected")
    return plain


def to_json(plain: Plain) -> bytes:
    """Keys sorted, no spaces, ASCII."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def from_json(data: bytes) -> Plain:
    """Inverse of `to_json`; DecodeError when it is no JSON, or an object names a key twice."""
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"manifest: no JSON ({type(error).__name__})") from None


def _unique(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise DecodeError("manifest: an object names a key twice")
    return dict(pairs)
