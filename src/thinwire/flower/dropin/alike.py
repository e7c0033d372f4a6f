"""Alike: the replies of one round must hold the same arrays and metrics, or the odd one spoils what is made of all.

numpy spreads a (1, 1) array over everybody's, complex numbers make a median complex, and Flower's strategies raise when
one reply lacks a metric. An app may well reply with other arrays than it was sent, but then all its nodes do. So what
most replies hold is right, whatever was asked; of as many on both sides, what the round before held, then what was
asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from thinwire.flower.dropin.buffers import Name
from thinwire.flower.dropin.claims import Claim, Metrics
from thinwire.flower.dropin.manifest import Manifest

NOTHING = Manifest((), ())
Sign = dict[tuple[str, ...], str]  # what one reply holds: a word for each thing in it


@dataclass(frozen=True, eq=False)
class Seen:
    """What a reply holds, beside the numbers.

    asked: arrays that its node was sent. still: names of those that it leaves as they were; None without arrays.
    """

    node: int
    asked: Manifest
    manifest: Manifest
    still: frozenset[Name] | None
    metrics: Metrics


def odd_arrays(replies: Mapping[int, Seen], before: Iterable[Sign] = ()) -> tuple[dict[int, str], list[Sign]]:
    """Reasons against the replies with other arrays than most, and what most hold. before: that of the last round.

    Where a strategy sends nodes different arrays, those that were sent the same ones are compared.
    """
    reasons, usual = dict[int, str](), list[Sign]()
    for asked in dict.fromkeys(reply.asked for reply in replies.values()):
        group = {number: reply.manifest for number, reply in replies.items() if reply.asked == asked}
        free = _of_any_length(asked, list(group.values()))
        signs = {number: _arrays(manifest, free) for number, manifest in group.items()}
        wanted = _arrays(asked, free)
        found, most = _odd("array", signs, before, lambda sign, wanted=wanted: sign == wanted)  # type: ignore[misc]
        reasons |= found
        usual.append(most)
    return reasons, usual


def odd_metrics(
    replies: Mapping[int, Metrics], key: str, before: Iterable[Sign] = ()
) -> tuple[dict[int, str], list[Sign]]:
    """The same of metrics. Of as many on both sides, those with `key` are right."""
    if not replies:
        return {}, []
    signs = {number: _kinds(metrics) for number, metrics in replies.items()}
    reasons, most = _odd("metric", signs, before, lambda sign: any(name[1:] == (key,) for name in sign))
    return reasons, [most]


def _odd(
    what: str, signs: Mapping[int, Sign], before: Iterable[Sign], better: Callable[[Any], bool]
) -> tuple[dict[int, str], Sign]:
    counts = Counter(tuple(sign.items()) for sign in signs.values())
    last = list(before)
    most = max((dict(pairs) for pairs in counts), key=lambda s: (counts[tuple(s.items())], s in last, better(s)))
    order = tuple(most.items())
    return {n: _difference(what, sign, most) for n, sign in signs.items() if tuple(sign.items()) != order}, most


def _difference(what: str, sign: Sign, most: Sign) -> str:
    """What is odd about a reply, in a few words."""
    for name in [*most, *sign]:
        if sign.get(name) != most.get(name):
            label = repr("/".join(name))[:60]
            held, usual = sign.get(name, "missing")[:60], most.get(name, "not there")[:60]
            return f"{what} {label} is {held}, in most replies of the round {usual}"
    return f"{what}s are in another order than in most replies of the round"


def _arrays(manifest: Manifest, free: frozenset[Name]) -> Sign:
    sign: Sign = {(record,): "there" for record in manifest.records}
    for item in manifest.items:
        sign[item.name] = f"{item.dtype} {'of any length' if item.name in free else item.shape}"
    return sign


def _of_any_length(asked: Manifest, replies: list[Manifest]) -> frozenset[Name]:
    """Names of byte strings, such as the trees of xgboost: each node's is as long as it comes out.

    One whose length most replies have kept is none: a mask.
    """
    strings = [
        item for manifest in replies for item in manifest.items if item.dtype == "uint8" and len(item.shape) == 1
    ]
    known = {item.name: item for item in asked.items}
    kept = Counter(item.name for item in strings if item == known.get(item.name))
    return frozenset(item.name for item in strings if 2 * kept[item.name] <= len(replies))


def _kinds(metrics: Metrics) -> Sign:
    records: Sign = {(name,): "there" for name in sorted(metrics)}
    return records | {
        (name, key): _kind(metrics[name][key]) for name in sorted(metrics) for key in sorted(metrics[name])
    }


def _kind(value: Claim) -> str:
    """Whole and broken numbers are alike; those that are not finite are not."""
    if isinstance(value, list):
        return f"a list of {len(value)} numbers" + ("" if all(map(isfinite, value)) else ", not all finite")
    return "a number" if isfinite(value) else "not finite"
