"""What the lossy codecs ask of an input and of a payload before they use it."""

from __future__ import annotations

import numpy as np

from thinwire.codecs import trace
from thinwire.codecs.base import Codec, Context
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout


def finite(x: np.ndarray) -> np.ndarray:
    """The array itself if every entry is finite; else ConfigError that names the first one that is not."""
    good = np.isfinite(x)
    if not good.all():
        raise ConfigError("x", f"NaN or infinity at entry {int(np.argmin(good))}", "finite entries")
    return x


def runs(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Where the tensors that have entries start, and how many entries each has.  # (tensors,) int64 twice."""
    sizes = layout.sizes
    return (np.cumsum(sizes) - sizes)[sizes > 0], sizes[sizes > 0]


def take_scales(payload: bytes, count: int, codec: str, name: str = "scales") -> tuple[np.ndarray, bytes]:
    """`count` little-endian float32 off the front, finite and not below 0, and the rest; else DecodeError."""
    if len(payload) < 4 * count:
        raise DecodeError(f"{codec}: {len(payload)} bytes, at least {4 * count} expected for {count} scales")
    scales = np.frombuffer(payload, dtype="<f4", count=count).astype(np.float32)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise DecodeError(f"{codec}: a scale is negative, NaN or infinite")
    trace.cut(name, 4 * count)
    return scales, payload[4 * count :]


def take_labels(labels: Codec, coded: bytes, context: Context, most: int, codec: str) -> np.ndarray:
    """(n,) uint32 labels, none above `most`; DecodeError before they are decoded, where their coder looks for it."""
    found: np.ndarray = trace.nested("labels", labels, coded, Context(context.layout, most=most))
    if (largest := int(found.max(initial=0))) > most:
        raise DecodeError(f"{codec}: a label {largest}, at most {most} expected")
    return found


def unpack_bits(packed: bytes, count: int, codec: str, name: str = "bits") -> np.ndarray:
    """(count,) uint8 bits, lowest of each byte first; DecodeError on another length or a spare bit that is set."""
    if len(packed) != (expected := (count + 7) // 8):
        raise DecodeError(f"{codec}: {len(packed)} bytes of packed bits, expected {expected} for {count} bits")
    if count % 8 and packed[-1] >> count % 8:
        raise DecodeError(f"{codec}: a spare bit of the last byte is set")
    trace.cut(name, len(packed))
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count, bitorder="little")
