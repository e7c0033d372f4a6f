"""Codecs: array <-> bytes. numpy and entropy coders; no torch, no word of rounds or clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinwire.codecs import config
from thinwire.codecs.base import Codec, Context, carries
from thinwire.codecs.byrole import ByRole
from thinwire.codecs.combine import Each, Prune, Shortest
from thinwire.codecs.config import at, tag, to_config
from thinwire.codecs.dense import BFloat16, Float16, Float32
from thinwire.codecs.eden import Drive, Eden
from thinwire.codecs.error import fidelity, missed, nmse
from thinwire.codecs.fp8 import FP8
from thinwire.codecs.kmeans import KMeans
from thinwire.codecs.labels import Huffman, Members, Raw
from thinwire.codecs.lloyd import Lloyd
from thinwire.codecs.logscale import LogScale
from thinwire.codecs.mask import Mask
from thinwire.codecs.named import M22, STC, FedZip, TinyScript
from thinwire.codecs.pooled import Pooled
from thinwire.codecs.positions import Bitmap, Fixed, Gaps
from thinwire.codecs.qsgd import QSGD
from thinwire.codecs.sign import SignSGD
from thinwire.codecs.sketch import CountSketch
from thinwire.codecs.ternary import Ternary
from thinwire.codecs.terngrad import TernGrad
from thinwire.codecs.thin import Thin
from thinwire.codecs.topk import TopK
from thinwire.codecs.trace import Part, parts, traced
from thinwire.codecs.uniform import Uniform
from thinwire.codecs.votes import Votes

_ALL: tuple[type[Codec], ...] = (
    Float32, Float16, BFloat16, FP8,  # dense casts
    Thin,  # the house codec
    FedZip, M22, TinyScript, STC,  # papers' pipelines
    SignSGD, TernGrad, QSGD, Drive, Eden, CountSketch,  # baselines
    TopK, ByRole, Pooled, Each, Prune, Shortest,  # blocks that nest others
    KMeans, Lloyd, Uniform, Ternary, LogScale,  # values
    Mask, Bitmap, Fixed, Gaps,  # positions
    Votes, Huffman, Raw, Members,  # labels
)  # fmt: skip
CODECS: dict[str, type[Codec]] = {codec.id: codec for codec in _ALL}

__all__ = [
    "CODECS", "Codec", "Context", "Part", "at", "carries", "codec_name", "fidelity", "from_config", "missed",
    "nmse", "parts", "tag", "to_config", "traced",
    *sorted(codec.__name__ for codec in _ALL),
]  # fmt: skip


def from_config(settings: Mapping[str, Any], dtype: str = "", others: Sequence[str] = ()) -> Codec:
    """The codec that {'id': …, field: value, …} describes; ConfigError names what is wrong and what is allowed.

    dtype: of the arrays that it is for, others: keys that may stand beside its fields; both only for what is allowed.
    """
    return config.from_config(settings, CODECS, dtype, others)


def codec_name(codec_tag: int) -> str:
    """The id of the codec that a frame's tag belongs to, 'unknown' if it is none of ours."""
    return config.name_of(codec_tag, CODECS)
