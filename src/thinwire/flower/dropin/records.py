"""Records: the ArrayRecords of a message as numpy arrays under a manifest, and back; a frame as one Array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from thinwire.errors import ConfigError, DecodeError
from thinwire.flower.dropin.manifest import NUMBERS, Item, Manifest
from thinwire.flower.dropin.words import KEY, RECORD, ROUND, STYPE

Arrays = Sequence[np.ndarray]  # one for each item of a manifest
NPY = "numpy.ndarray"  # what Flower calls its own serialisation


def unpack(content: RecordDict) -> tuple[Manifest, list[np.ndarray]]:
    """All arrays of a message's ArrayRecords; ConfigError names one that cannot travel."""
    items, arrays = [], []
    for record, held in content.array_records.items():
        for key, array in held.items():
            arrays.append(_numbers(f"array {record}/{key}", array))
            items.append(Item(record, key, arrays[-1].dtype.name, arrays[-1].shape))
    return Manifest(tuple(content.array_records), tuple(items)), arrays


def _numbers(name: str, array: Array) -> np.ndarray:
    if array.stype != NPY:
        raise ConfigError(name, array.stype, f"only arrays serialised as {NPY} can be coded")
    values = array.numpy()
    if values.dtype.name not in NUMBERS:
        raise ConfigError(name, values.dtype.name, f"one of {', '.join(NUMBERS)}")
    return values


def pack(manifest: Manifest, arrays: Arrays) -> dict[str, ArrayRecord]:
    """Inverse of `unpack`."""
    packed = {record: ArrayRecord() for record in manifest.records}
    for item, array in zip(manifest.items, arrays, strict=True):
        packed[item.record][item.key] = Array(array)
    return packed


def beside(content: RecordDict) -> dict[str, ConfigRecord | MetricRecord]:
    """The app's records that hold no arrays."""
    return {n: r for n, r in content.items() if n != ROUND and isinstance(r, ConfigRecord | MetricRecord)}


def check_names(content: RecordDict) -> None:
    """ConfigError when an app uses a name of ours."""
    for name in (RECORD, ROUND):
        if name in content:
            raise ConfigError("record", name, "another name: this one is thinwire's own")


def frame_record(data: bytes, hint: str = "") -> ArrayRecord:
    """A frame as a record of one Array. Who reads it as numbers gets an error of Flower's that quotes the hint."""
    return ArrayRecord({KEY: Array(dtype="uint8", shape=(len(data),), stype=f"{STYPE}{hint}", data=data)})


def frame_bytes(record: ArrayRecord) -> bytes:
    """Inverse of `frame_record`."""
    return record[KEY].data


def frame_of(content: RecordDict) -> bytes | None:
    """The frame of a message, None if it has none; DecodeError when there are other arrays beside it."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    framed = [array for array in arrays if array.stype.startswith(STYPE)]
    if not framed:
        return None
    if len(arrays) != 1:
        raise DecodeError(f"message: a frame and {len(arrays) - 1} more arrays")
    return framed[0].data
