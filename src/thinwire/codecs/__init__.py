"""Codecs: array <-> bytes. numpy and an integer range coder; no torch, no word of rounds or clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinwire.codecs import config
from thinwire.codecs.base import Codec, Context
from thinwire.codecs.config import tag, to_config
from thinwire.codecs.dense import BFloat16, Float16, Float32
from thinwire.codecs.mask import Mask
from thinwire.codecs.votes import Votes

CODECS: dict[str, type[Codec]] = {codec.id: codec for codec in (Float32, Float16, BFloat16, Mask, Votes)}

__all__ = [
    "CODECS", "BFloat16", "Codec", "Context", "Float16", "Float32", "Mask", "Votes",
    "codec_name", "from_config", "tag", "to_config",
]  # fmt: skip


def from_config(settings: Mapping[str, Any]) -> Codec:
    """The codec that {'id': …, field: value, …} describes; ConfigError names what is wrong and what is allowed."""
    return config.from_config(settings, CODECS)


def codec_name(codec_tag: int) -> str:
    """The id of the codec that a frame's tag belongs to, 'unknown' if it is none of ours."""
    return config.name_of(codec_tag, CODECS)
