"""Ascending numbers as runs of [first, count]: how JSON of the pair names arrays of a manifest."""

from __future__ import annotations

from collections.abc import Iterable

from thinwire.errors import DecodeError
from thinwire.flower.dropin.manifest import Plain, is_count, listed


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as runs of [first, count]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and sum(found[-1]) == number:
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return found


def numbers(where: str, plain: Plain, most: int) -> list[int]:
    """Inverse of `runs` for numbers below `most`; DecodeError names what is wrong, and where."""
    found: list[int] = []
    for run in listed(plain):
        if not isinstance(run, list) or len(run) != 2 or not all(is_count(part) for part in run) or sum(run) > most:
            raise DecodeError(f"{where}: [first, count] of {most} arrays expected")
        if found and run[0] <= found[-1]:
            raise DecodeError(f"{where}: runs of arrays must ascend")
        found += range(run[0], run[0] + run[1])
    return found
