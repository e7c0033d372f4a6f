"""Changes: the manifest of a reply, told by how it differs from the manifest of the message that it answers.

Most replies hold the very arrays received, and then nothing is told. Averages of whole numbers come as float64 and go
back as int64, optimisers widen float32: then a dtype and the numbers of the arrays are told. Names only of new arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from thinwire.errors import DecodeError
from thinwire.flower.dropin.manifest import (
    Manifest,
    Plain,
    checked_dtype,
    from_plain,
    is_count,
    listed,
    merged,
    to_plain,
)


def changes(received: Manifest, reply: Manifest) -> Plain:
    """How a reply's arrays differ from those received, None if not at all; `changed` undoes it.

    {"gone": arrays that are left out, "as": {dtype: arrays that came back in it}, "new": a manifest of others}; what
    is empty is left out. Arrays received go by number, in runs of [first, count]. Records without arrays are always
    among the new.
    """
    if reply == received:
        return None
    short = _by_name(received, reply)
    everything = {"gone": _runs(range(len(received.items))), "new": to_plain(reply)}
    return short if changed(received, short) == reply else everything


def _by_name(received: Manifest, reply: Manifest) -> Plain:
    """What differs array by array; right unless the reply has them in another order."""
    gone, dtypes, kept = [], dict[str, list[int]](), set()
    for number, item in enumerate(received.items):
        twin = reply.items[reply.by_name[item.name]] if item.name in reply.by_name else None
        if twin is None or twin.shape != item.shape:
            gone.append(number)
            continue
        kept.add(item.name)
        if twin.dtype != item.dtype:
            dtypes.setdefault(twin.dtype, []).append(number)
    new = [item for item in reply.items if item.name not in kept]
    filled = {item.record for item in reply.items if item.name in kept}
    records = [name for name in reply.records if name not in filled or name in {item.record for item in new}]
    described = {"gone": _runs(gone), "as": {dtype: _runs(n) for dtype, n in dtypes.items()},
                 "new": to_plain(merged(records, new))}  # fmt: skip
    return {name: value for name, value in described.items() if value}


def changed(received: Manifest, described: Plain) -> Manifest:
    """The reply's manifest; DecodeError names what is wrong."""
    if not isinstance(described, dict) or not set(described) <= {"gone", "as", "new"}:
        raise DecodeError("changes: an object of gone, as and new expected")
    dtypes = described.get("as", {})
    if not isinstance(dtypes, dict):
        raise DecodeError("changes: as is an object of dtypes")
    most = len(received.items)
    gone = set(_numbers(described.get("gone", []), most))
    other = {number: checked_dtype(dtype) for dtype, runs in dtypes.items() for number in _numbers(runs, most)}
    kept = [replace(item, dtype=other.get(number, item.dtype))
            for number, item in enumerate(received.items) if number not in gone]  # fmt: skip
    new = from_plain(described.get("new", []))
    return merged([*(item.record for item in kept), *new.records], [*kept, *new.items])


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as runs of [first, count]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    return runs


def _numbers(runs: Plain, most: int) -> list[int]:
    """Inverse of `_runs` for numbers below `most`."""
    numbers: list[int] = []
    for run in listed(runs):
        if not isinstance(run, list) or len(run) != 2 or not all(is_count(part) for part in run) or sum(run) > most:
            raise DecodeError(f"changes: [first, count] of {most} arrays expected")
        if numbers and run[0] <= numbers[-1]:
            raise DecodeError("changes: runs of arrays must ascend")
        numbers += range(run[0], run[0] + run[1])
    return numbers
