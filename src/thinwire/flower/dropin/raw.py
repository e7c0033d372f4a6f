"""Raw arrays: exact, little-endian, one after the other. What the other end holds already is not sent again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinwire.errors import DecodeError
from thinwire.flower.dropin.manifest import Item
from thinwire.flower.dropin.records import Arrays

Twins = Sequence[np.ndarray | None]  # what both ends hold of each array, in its dtype and shape; None: nothing


def write(items: Sequence[Item], arrays: Arrays, twins: Twins) -> bytes:
    """Arrays for an end that holds the twins: a bit for each twin, set where it is the array, then the others.

    Nothing at all where every array is held. Without twins there are no bits.
    """
    same = [
        None if twin is None else _bytes(item, twin) == _bytes(item, array)
        for item, array, twin in zip(items, arrays, twins, strict=True)
    ]
    return write_held(items, arrays, same)


def write_held(items: Sequence[Item], arrays: Arrays, held: Sequence[bool | None]) -> bytes:
    """The same, told which arrays are their twins. None: has no twin."""
    if all(held):
        return b""
    flags = np.array([same for same in held if same is not None], dtype=bool)
    bits = np.packbits(flags, bitorder="little").tobytes()
    return bits + b"".join(
        _bytes(item, array) for item, array, same in zip(items, arrays, held, strict=True) if not same
    )


def _bytes(item: Item, array: np.ndarray) -> bytes:
    return array.astype(_wire(item), copy=False).tobytes()


def read(data: bytes, items: Sequence[Item], twins: Twins) -> tuple[list[np.ndarray], list[bool]]:
    """Inverse of `write`: the arrays, and which of them are the twins. DecodeError unless the bytes are used up."""
    held, data = _held(data, twins)
    sizes = [0 if same else item.nbytes for item, same in zip(items, held, strict=True)]
    if len(data) != sum(sizes):
        raise DecodeError(f"raw: {len(data)} bytes, {sum(sizes)} expected for {len(sizes) - sum(held)} arrays")
    arrays, start = [], 0
    for item, twin, same, size in zip(items, twins, held, sizes, strict=True):
        arrays.append(twin if same and twin is not None else _array(data[start : start + size], item))
        start += size
    return arrays, held


def _held(data: bytes, twins: Twins) -> tuple[list[bool], bytes]:
    """Which arrays are their twins, and the bytes of the others."""
    if not data:
        return [twin is not None for twin in twins], b""
    count = sum(twin is not None for twin in twins)
    end = (count + 7) // 8
    bits = np.unpackbits(np.frombuffer(data[:end], dtype=np.uint8), bitorder="little")
    if bits.size < count or bits[count:].any():
        raise DecodeError(f"raw: no bits for {count} arrays that are held")
    flags = iter(bits[:count].astype(bool).tolist())
    return [twin is not None and next(flags) for twin in twins], data[end:]


def cast(array: np.ndarray, dtype: str) -> np.ndarray | None:
    """What an array is in another dtype, the same on every machine; None where that is not settled."""
    to = np.dtype(dtype)
    if array.dtype.kind == "c" != to.kind:
        return None
    if array.dtype.kind == "f" and to.kind in "iu":
        wide, bound = array.astype(np.float64), np.iinfo(to)
        if not ((wide > float(bound.min) - 1) & (wide < float(bound.max) + 1)).all():  # else C leaves it to the machine
            return None
    with np.errstate(all="ignore"):
        return array.astype(to)


def _wire(item: Item) -> np.dtype:
    return np.dtype(item.dtype).newbyteorder("<")


def _array(data: bytes, item: Item) -> np.ndarray:
    if item.dtype == "bool" and data.strip(b"\0\1"):
        raise DecodeError(f"raw: {item.label} is bool and holds other bytes than 0 and 1")
    return np.frombuffer(data, dtype=_wire(item)).astype(item.dtype).reshape(item.shape)
