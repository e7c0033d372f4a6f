"""Changes: the manifest of a reply, told by how it differs from the manifest of the message that it answers.

Most replies hold the very arrays received, and then nothing is told. Averages of whole numbers come as float64 and go
back as int64, optimisers widen float32: then a dtype and the numbers of the arrays are told. Names only of new arrays.
"""

from __future__ import annotations

from dataclasses import replace

from thinwire.errors import DecodeError
from thinwire.flower.dropin.manifest import (
    Manifest,
    Plain,
    checked_dtype,
    from_plain,
    merged,
    to_plain,
)
from thinwire.flower.dropin.runs import numbers, runs


def changes(received: Manifest, reply: Manifest) -> Plain:
    """How a reply's arrays differ from those received, None if not at all; `changed` undoes it.

    {"gone": arrays that are left out, "as": {dtype: arrays that came back in it}, "new": a manifest of others}; what
    is empty is left out. Arrays received go by number, in runs of [first, count]. Records without arrays are always
    among the new.
    """
    if reply == received:
        return None
    short = _by_name(received, reply)
    everything = {"gone": runs(range(len(received.items))), "new": to_plain(reply)}
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
    described = {"gone": runs(gone), "as": {dtype: runs(found) for dtype, found in dtypes.items()},
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
    gone = set(numbers("changes", described.get("gone", []), most))
    other = {
        number: checked_dtype(dtype) for dtype, told in dtypes.items() for number in numbers("changes", told, most)
    }
    kept = [replace(item, dtype=other.get(number, item.dtype))
            for number, item in enumerate(received.items) if number not in gone]  # fmt: skip
    new = from_plain(described.get("new", []))
    return merged([*(item.record for item in kept), *new.records], [*kept, *new.items])
