"""Terms: what both ends must agree on before a frame can be read: the arrays by name, and the codecs both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from thinwire.codecs import Codec, Float32, from_config, tag, to_config
from thinwire.codecs.config import require
from thinwire.errors import ConfigError, DecodeError
from thinwire.flower.dropin.manifest import Manifest, Plain, from_json, from_plain, to_json, to_plain
from thinwire.flower.dropin.runs import numbers, runs
from thinwire.flower.dropin.split import Split, downward, upward
from thinwire.frame import Frame, Section

CodecLike = Codec | str | Mapping[str, Any]
DEFAULT = "thin"
FORMAT = 2  # of the pair's frames: with it terms, steps and updates are read
NEEDED = {"format", "records", "uplink"}


def codec_of(codec: CodecLike, where: str) -> Codec:
    """A codec, or the one that an id or a configuration names; ConfigError unless it is for float32 arrays."""
    settings = {"id": codec} if isinstance(codec, str) else codec
    chosen = from_config(settings) if isinstance(settings, Mapping) else settings
    require(where, chosen, "float32")
    return chosen


@dataclass(frozen=True)
class Terms:
    """Arrays of a broadcast, and the codecs that updates and steps are in (None: broadcasts are not coded).

    exact: numbers of the arrays that are no weights, ascending.
    """

    manifest: Manifest
    uplink: Codec
    downlink: Codec | None = None
    exact: tuple[int, ...] = ()

    @cached_property
    def data(self) -> bytes:
        """As JSON: what travels in a keyframe."""
        codecs = {"uplink": self.uplink, "downlink": self.downlink}
        configs = {name: to_config(codec) for name, codec in codecs.items() if codec}
        exact = {"exact": runs(self.exact)} if self.exact else {}
        return to_json({"format": FORMAT, "records": to_plain(self.manifest), **configs, **exact})

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes of SHA-256 of the JSON: what every frame under these terms names."""
        return sha256(self.data).digest()[:8]

    @cached_property
    def split(self) -> Split:
        """Which arrays of a broadcast are coded."""
        return downward(self.manifest, frozenset(self.exact)) if self.downlink else Split(self.manifest, ())

    def split_reply(self, reply: Manifest) -> tuple[Split, tuple[int, ...]]:
        """Which arrays of a reply are coded, and numbers of those received that they are coded against.

        None are where nothing is to be lost, `float32` up and no codec down: a difference of float32 rounds.
        """
        if self.uplink == Float32() and self.downlink is None:
            return Split(reply, ()), ()
        return upward(self.manifest, reply, frozenset(self.exact))

    @property
    def tag(self) -> int:
        """What keyframes and steps say of their codec."""
        return tag(self.downlink or Float32())


def read_terms(data: bytes) -> Terms:
    """Terms of JSON from the network; DecodeError names what is wrong."""
    plain = from_json(data)
    if not isinstance(plain, dict):
        raise DecodeError("terms: an object expected")
    if (found := plain.get("format", 1)) != FORMAT:
        raise DecodeError(
            f"terms: of format {found!r:.20}, this thinwire knows {FORMAT}: the two ends differ in version"
        )
    if not NEEDED <= set(plain) <= NEEDED | {"downlink", "exact"}:
        raise DecodeError("terms: an object of format, records and uplink expected, downlink and exact allowed")
    manifest = from_plain(plain["records"])
    downlink = _codec(plain["downlink"]) if "downlink" in plain else None
    exact = numbers("terms", plain.get("exact", []), len(manifest.items))
    return Terms(manifest, _codec(plain["uplink"]), downlink, tuple(exact))


def _codec(plain: Plain) -> Codec:
    try:
        return codec_of(plain if isinstance(plain, dict) else {}, "terms")
    except (ConfigError, TypeError, RecursionError) as error:
        raise DecodeError(f"terms: a codec that this thinwire does not have: {error}") from None


def describe(codec: Codec) -> str:
    """A codec's configuration on one line."""
    return to_json(to_config(codec)).decode()


def filled(*sections: tuple[Section, bytes]) -> tuple[tuple[int, bytes], ...]:
    """Sections without the empty ones, which do not travel."""
    return tuple((sort, data) for sort, data in sections if data)


def opened(frame: Frame, *allowed: Section, many: Section | None = None) -> dict[int, bytes]:
    """A frame's sections by sort, each at most once but `many`; DecodeError when one is there twice or not allowed."""
    found = [(sort, data) for sort, data in frame.sections if sort != many]
    if len(dict(found)) != len(found) or not {sort for sort, _ in found} <= set(allowed):
        names = ", ".join(section.name.lower() for section in allowed)
        raise DecodeError(f"frame: has sections that a {frame.kind.name.lower()} may not have: {names} once each")
    return dict(found)
