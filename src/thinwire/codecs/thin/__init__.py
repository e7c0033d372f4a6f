"""`thin`, the house codec: rate-distortion optimised levels of a low-rank transform under an adaptive mixed model."""

from __future__ import annotations

from thinwire.codecs.thin.codec import Encoded, Thin

__all__ = ["Encoded", "Thin"]
