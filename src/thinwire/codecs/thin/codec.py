"""The codec `thin`: its knobs, its payload and the way back."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinwire.codecs import trace
from thinwire.codecs.base import Context, checked
from thinwire.codecs.checks import finite
from thinwire.codecs.thin import lossless, passes, rate, work
from thinwire.codecs.thin.trials import HEADER
from thinwire.errors import ConfigError, DecodeError, one_of

LOSSLESS = 3  # the effort after those of the speeds
NMSE = 0.05  # where no target is given


@dataclass(frozen=True)
class Encoded:
    """A payload with what it was asked for and what it reaches: `target` names nmse, bits or bytes.

    nmse: ‖x − x̂‖² / ‖x‖² of what the reader decodes; 0 for an update of zeros.
    """

    payload: builtins.bytes
    nmse: float
    target: str
    wanted: float
    got: float
    passes: int

    @property
    def reached(self) -> bool:
        """Whether error or size is at most what was wanted; else this is the nearest that the search found."""
        return self.got <= self.wanted

    @property
    def reason(self) -> str:
        """Why the target is missed, one line; empty where it is met."""
        return "" if self.reached else _miss(self.target, self.got, self.wanted)


@dataclass(frozen=True)
class Thin:
    """Adaptive levels of outer products: few bits for any weight update, to an error, or to a size.

    Each tensor, the first axis against the rest, is X ≈ (c / 64) S + Σₖ uₖ bₖᵀ + L, each term only where it pays:
    c, a coefficient of the shared array's part S; r outer products, the leading directions of what is left; levels L.
    aₖ = ‖bₖ‖ uₖ and bₖ are sent as levels, uₖ is the decoded aₖ over its norm, bₖ is fitted to the decoded uₖ. All
    levels have one step Δ, so that every tensor and factor lies at the same slope of error against bits, and each is
    chosen against the model that codes it: the least (x/Δ − l)² + 0.1 bits(l). What a level stands for is
    ±(|l| − o/64) Δ, o the centroid's offset for |l| = 1, 2, above. The model (`model`) mixes contexts of neighbours,
    row, column and the shared array in integers, and decoded values are sums of products in a fixed order: every
    machine has the same bytes for the same levels, and the same values for the same bytes.

    One target, an upper bound: nmse, ‖x − x̂‖² / ‖x‖² over the update; bits a parameter; bytes of the payload. None:
    nmse = 0.05. The search over Δ mostly ends within 2 % below the target, further below where error and bytes jump
    (entries of one magnitude), and above it only where nothing tried meets it; `encoded` says which. Something is sent
    of every update that is not 0: a size too small for the least of it is exceeded.
    speed: 'fast' mixes two contexts and tries up to 24 products a tensor, 'balanced' 4 and 32, 'small' 6 and 64 and
    every combination. lossless: every bit of every float32, NaN too, coded by exponent and sign against what is shared.

    Payload: a byte of the effort (0, 1, 2 for the speeds, 3 for lossless) and, above its two bits, the length of the
    stream modulo 64; the step's k, Δ = 2^(k/128) (2 bytes, signed); the range-coded stream of `tensor.code`.
    Errors: ConfigError for NaN, infinity (unless lossless), or a field out of range; DecodeError for another length,
    for more effort, products or bits of levels (`work`) than these settings are worth, values that are not finite, an
    end that the writer would not choose.
    Cost: the first call compiles for 10 to 20 seconds, once a machine (numba's cache).
    """

    id: ClassVar[str] = "thin"
    dtype: ClassVar[str] = "float32"

    nmse: float | None = None
    bits: float | None = None
    bytes: int | None = None
    speed: str = "balanced"
    lossless: bool = False

    def __post_init__(self) -> None:
        for name, most in (("nmse", 1.0), ("bits", 32.0), ("bytes", 2.0**40)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value <= most):
                raise ConfigError(f"{self.id}.{name}", value, f"above 0, at most {most:g}")
        if isinstance(self.bytes, float) and not self.bytes.is_integer():
            raise ConfigError(f"{self.id}.bytes", self.bytes, "a whole number")
        for name, kind in (("nmse", float), ("bits", float), ("bytes", int)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, kind(value))
        if self.speed not in passes.SPEEDS:
            raise ConfigError(f"{self.id}.speed", self.speed, one_of(self.speed, passes.SPEEDS))
        given = [name for name in ("nmse", "bits", "bytes", "lossless") if getattr(self, name) not in (None, False)]
        if len(given) > 1:
            allowed = f"not beside {given[0]}: one of nmse, bits, bytes, lossless"
            raise ConfigError(f"{self.id}.{given[1]}", getattr(self, given[1]), allowed)

    def encode(self, x: np.ndarray, context: Context) -> builtins.bytes:
        """The payload; `encoded` also says what it reached."""
        return self.encoded(x, context).payload

    def encoded(self, x: np.ndarray, context: Context) -> Encoded:
        """The payload, and whether it meets the target."""
        x = checked(x, np.float32, context)
        if self.lossless:
            return Encoded(_sealed(LOSSLESS, 0, lossless.encode(x, context)), 0.0, "nmse", 0.0, 0.0, 1)
        sources = passes.sources(finite(x), context, passes.SPEEDS[self.speed].rank)
        target, wanted = self._target(x.size)
        found = rate.search(sources, self.speed, target, wanted)
        stream = found.stream or passes.write(found.pieces, sources, found.k, self.speed)
        payload = _sealed(list(passes.SPEEDS).index(self.speed), found.k, stream)
        size = 8 * len(payload) / max(x.size, 1) if self.bits is not None else len(payload)
        got = found.nmse if target == "nmse" else size
        wanted = self.bits if self.bits is not None else wanted
        return Encoded(payload, found.nmse, "bits" if self.bits is not None else target, wanted, got, found.passes)

    @property
    def exact(self) -> bool:
        """Does every bit come back?"""
        return self.lossless

    def missed(self, nmse: float, payload_bytes: int, n: int) -> str:
        """Why a payload for n entries, decoded with this error, misses the target; empty where it meets it."""
        target, wanted = self._target(n)
        if self.lossless:
            return ""
        if target == "nmse":
            return "" if nmse <= wanted * (1 + 1e-9) else _miss(target, nmse, wanted)
        if payload_bytes <= wanted:
            return ""
        if self.bits is None:
            return _miss(target, payload_bytes, wanted)
        return _miss("bits", 8 * payload_bytes / max(n, 1), self.bits)

    def _target(self, n: int) -> tuple[str, float]:
        if self.bytes is not None or self.bits is not None:
            return "bytes", float(self.bytes if self.bytes is not None else (self.bits or 0) * n / 8)
        return "nmse", self.nmse if self.nmse is not None else NMSE

    def decode(self, payload: builtins.bytes, context: Context) -> np.ndarray:
        """(n,) float32."""
        if len(payload) < HEADER:
            raise DecodeError(f"{self.id}: {len(payload)} bytes, at least {HEADER} expected")
        effort, k = payload[0] & 3, int.from_bytes(payload[1:HEADER], "little", signed=True)
        stream = payload[HEADER:]
        trace.cut("header", HEADER)
        trace.cut("levels", len(stream))
        if payload[0] >> 2 != len(stream) % 64:
            raise DecodeError(f"{self.id}: {len(stream)} bytes after the header, which names another length")
        own = LOSSLESS if self.lossless else list(passes.SPEEDS).index(self.speed)
        if (effort == LOSSLESS) != self.lossless or effort > own:
            raise DecodeError(f"{self.id}: a payload of effort {effort}, this codec's own is {own}")
        if effort < LOSSLESS:
            n = context.layout.size
            return passes.read(stream, context, k, list(passes.SPEEDS)[effort], work.most(*self._target(n), n))
        if k:
            raise DecodeError(f"{self.id}: a lossless payload has no step")
        return lossless.decode(stream, context)


def _miss(target: str, got: float, wanted: float) -> str:
    least = "the finest step leaves more" if target == "nmse" else "the least payload found is larger"
    return f"thin: {target} {got:.4g}, at most {wanted:.4g} wanted: {least}"


def _sealed(effort: int, k: int, stream: builtins.bytes) -> builtins.bytes:
    return bytes([effort | len(stream) % 64 << 2]) + k.to_bytes(2, "little", signed=True) + stream
