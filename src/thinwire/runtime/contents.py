"""What crosses, by sort: what a message is for, and what the bytes of an update are.

Sorts of a message: `update`, `setup` (an answer before training: SSFL's saliencies), `request` (for a keyframe),
`keyframe`, `step`. The ledger has one more, `refused`, for answers that the server did not accept.
Parts of an update: `frame` (its header, table of sections and checksum), `headers` (of payloads), `tables` (what the
rest is coded by: counts, histograms, centroids, scales), `positions` (of the entries that are sent), `mask` (bits),
`labels` (which level an entry has: indices, symbols, signs), `values` (entries as numbers), `buffers` (of the model,
as they are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from thinwire import frame as frames
from thinwire.codecs import Part, traced
from thinwire.frame import Section
from thinwire.methods import Update

# Names that codecs give to their pieces; what has another name, a tensor's for example, is values.
PARTS = {
    "header": "headers",
    **dict.fromkeys(("ones per class", "histograms", "code lengths", "centroids"), "tables"),
    **dict.fromkeys(("norms", "scales", "magnitudes", "exponents", "half steps", "range"), "tables"),
    **dict.fromkeys(("positions", "gaps", "addresses"), "positions"),
    "bits": "mask",
    "buffers": "buffers",
    **dict.fromkeys(("labels", "indices", "symbols", "low bits", "code words", "signs"), "labels"),
    "levels": "values",  # of `thin`: positions, signs and sizes in one stream
}


def sort_of(message: bytes) -> str:
    """What a frame is for; DecodeError when it is none."""
    frame = frames.read(message)
    return "setup" if frame.all(Section.SALIENCY) else frame.kind.name.lower()


def opened(read: Callable[[], Update], size: int) -> tuple[Update, Counter[str]]:
    """What `read` makes of an update's frame of `size` bytes, and these bytes by part; what `read` raises."""
    updates = list[Update]()
    pieces = [piece for piece in traced(lambda: updates.append(read())) if piece.leaf]
    parts = Counter(frame=size - sum(piece.bytes for piece in pieces))
    for piece in pieces:
        parts[_part(piece)] += piece.bytes
    return updates[0], parts


def _part(piece: Part) -> str:
    *around, name = piece.path
    found = PARTS.get(name, "values")
    return "positions" if "positions" in around and found not in ("headers", "tables") else found
