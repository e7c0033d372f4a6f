"""Buffers: the numbers in a model's state that are not trained, as bytes and back, and their mean over clients.

Running statistics, step counters, masks, tables of positions. They are no weights: no momentum, sparsifier, residual or
bound on norms is meant for them, so they never enter the flat vector. Both ends hold them bit for bit, as one bytes
object: the buffers in the model's order, each as it is in memory, little-endian. A payload names those that differ from
what the other side holds and gives them whole, so a constant costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median_high, median_low

import numpy as np
import torch
from torch import nn

from thinwire.errors import ConfigError, DecodeError

_LARGEST = 1e300  # of a float64 entry: a weighted sum over a cohort stays finite


@dataclass(frozen=True)
class Buffer:
    """One buffer: its name in the model, the module that owns it, and what it must stay: shape and dtype."""

    name: str
    owner: nn.Module
    key: str
    shape: torch.Size
    dtype: torch.dtype

    @property
    def tensor(self) -> torch.Tensor:
        """What the module holds now; ConfigError when a forward pass has left another kind of thing there."""
        found = self.owner._buffers.get(self.key)
        if found is None or found.shape != self.shape or found.dtype != self.dtype:
            now = "gone" if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
            allowed = f"always {self.dtype} of shape {tuple(self.shape)}, as at the start"
            raise ConfigError(f"model buffer {self.name}", now, allowed)
        return found

    @cached_property
    def size(self) -> int:
        """Bytes that it takes."""
        return self.shape.numel() * self.dtype.itemsize

    def read(self) -> bytes:
        """Its entries as they are in memory."""
        return bytes_of(self.tensor)

    def values(self, data: bytes) -> torch.Tensor:
        """The entries that bytes stand for.  # (size,)"""
        return torch.frombuffer(bytearray(data), dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


@dataclass(frozen=True)
class Buffers:
    """Some buffers of a model, in its order."""

    parts: tuple[Buffer, ...]

    def __bool__(self) -> bool:
        return bool(self.parts)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Where each of them is in the bytes of all."""
        ends = np.cumsum([0, *(part.size for part in self.parts)]).tolist()
        return tuple(slice(*pair) for pair in pairwise(ends))

    def read(self) -> bytes:
        """What the model holds."""
        return b"".join(part.read() for part in self.parts)

    @torch.no_grad()
    def write(self, data: bytes) -> None:
        """Make the model hold it."""
        for part, span in zip(self.parts, self.spans, strict=True):
            part.tensor.copy_(part.values(data[span]).view(part.shape))

    def difference(self, data: bytes, known: bytes) -> bytes:
        """The payload of those that are not what is known."""
        return self.payload(data, [data[span] != known[span] for span in self.spans])

    def payload(self, data: bytes, chosen: Sequence[bool]) -> bytes:
        """A bit a buffer, lowest first, set where it is chosen; then those. Empty if none is."""
        if not any(chosen):
            return b""
        flags = np.packbits(chosen, bitorder="little").tobytes()
        return flags + b"".join(data[span] for span, wanted in zip(self.spans, chosen, strict=True) if wanted)

    def changes(self, payload: bytes) -> dict[int, bytes]:
        """Inverse of `payload`: the bytes of the buffers, by number, that a payload names; DecodeError if odd."""
        if not payload:
            return {}
        count, start, found = (len(self.parts) + 7) // 8, (len(self.parts) + 7) // 8, dict[int, bytes]()
        flags = np.unpackbits(np.frombuffer(payload[:count], dtype=np.uint8), bitorder="little")
        if flags.size < len(self.parts) or flags[len(self.parts) :].any():
            raise DecodeError(f"buffers: the payload is not about {len(self.parts)} of them")
        for number in np.flatnonzero(flags).tolist():
            found[number] = payload[start : start + self.parts[number].size]
            start += self.parts[number].size
        if start != len(payload):
            raise DecodeError(f"buffers: {len(payload)} bytes, {start} expected")
        return found

    def patched(self, known: bytes, payload: bytes) -> bytes:
        """What is known, with what a payload names in its place; DecodeError unless it is finite or known."""
        changed = self.changes(payload)
        for number, data in changed.items():
            _check(self.parts[number], data, known[self.spans[number]])
        return b"".join(changed.get(number, known[span]) for number, span in enumerate(self.spans))

    def combine(self, known: bytes, sides: Sequence[tuple[int, bytes]], rule: Rule) -> bytes:
        """What a rule makes of the clients' payloads (samples, payload); `known` is what they all started from."""
        weights, found = [samples for samples, _ in sides], [self.changes(payload) for _, payload in sides]
        made = []
        for number, (part, span) in enumerate(zip(self.parts, self.spans, strict=True)):
            rows = [side.get(number, known[span]) for side in found]
            alike = all(row == known[span] for row in rows)
            made.append(known[span] if alike else _combined(part, known[span], rows, weights, rule))
        return b"".join(made)


@dataclass(frozen=True)
class Rule:
    """What becomes of one entry that clients have different values of.

    floats: (K, n) float64 values, (K,) samples -> (n,); wholes: K numbers, K samples -> one, in Python's own numbers.
    """

    floats: Callable[[np.ndarray, np.ndarray], np.ndarray]
    wholes: Callable[[Sequence[int], Sequence[int]], int]


def _mean(values: Sequence[int], weights: Sequence[int]) -> int:
    """The weighted mean to the nearest whole number, halves upwards: exact to 2⁶³."""
    total = sum(weights)
    return (2 * sum(weight * value for weight, value in zip(weights, values, strict=True)) + total) // (2 * total)


def _median(values: Sequence[int], weights: Sequence[int]) -> int:
    """The median to the nearest whole number, halves upwards."""
    return (median_low(values) + median_high(values) + 1) // 2


# Σ nₖ vₖ / Σ nₖ: within the values' range, so that variances stay at least 0.
MEAN = Rule(lambda rows, weights: weights @ rows / weights.sum(), _mean)
MEDIAN = Rule(lambda rows, weights: np.median(rows, axis=0), _median)  # whatever the sample counts


def _check(part: Buffer, data: bytes, known: bytes) -> None:
    """DecodeError names a buffer with an entry that is neither finite nor the one known, or a negative variance."""
    if not part.dtype.is_floating_point:
        return
    new, old = part.values(data), part.values(known)
    if part.key == "running_var" and bool((new < 0).any()):
        raise DecodeError(f"buffer {part.name}: a negative variance")
    bad = ~(new.isfinite() & (new.double().abs() <= _LARGEST))
    if bool((bad & ~((new == old) | (new.isnan() & old.isnan()))).any()):
        raise DecodeError(f"buffer {part.name}: NaN or infinite entries")


def _combined(part: Buffer, known: bytes, rows: Sequence[bytes], weights: Sequence[int], rule: Rule) -> bytes:
    """One buffer's bytes."""
    values = [part.values(row) for row in rows]
    if part.dtype.is_floating_point:
        return bytes_of(_floats(part.values(known), torch.stack(values), weights, rule))
    entries = zip(*(row.tolist() for row in values), strict=True)
    return bytes_of(torch.tensor([rule.wholes(entry, weights) for entry in entries], dtype=part.dtype))


def _floats(old: torch.Tensor, values: torch.Tensor, weights: Sequence[int], rule: Rule) -> torch.Tensor:
    """The rule in float64; where a value is not finite, all clients hold the one known, as `patched` has checked."""
    fixed = ~values.isfinite().all(dim=0)
    rows = torch.where(fixed, torch.zeros((), dtype=torch.float64), values.double()).numpy()
    found = torch.from_numpy(rule.floats(rows, np.array(weights, dtype=np.float64)))
    return torch.where(fixed, old, found.to(old.dtype))


def bytes_of(values: torch.Tensor) -> bytes:
    """A tensor's entries as they are in memory, in order."""
    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor, bool]]:
    """Every buffer once: its name, module, name there and tensor, and whether it belongs to the model's state.

    A hook may give the state's entries other names, so the modules themselves are asked.
    """
    seen = set[int]()
    for loose in (False, True):
        for path, module in model.named_modules():
            for key, tensor in module._buffers.items():
                if tensor is None or id(tensor) in seen or (key in module._non_persistent_buffers_set) != loose:
                    continue
                seen.add(id(tensor))
                yield f"{path}.{key}" if path else key, module, key, tensor, not loose


def buffers_of(model: nn.Module) -> Buffers:
    """The buffers that belong to a model's state, each once; ConfigError for complex ones."""
    parts = []
    for name, owner, key, tensor, belongs in places(model):
        if belongs and tensor.dtype.is_complex:
            raise ConfigError(f"model buffer {name}", str(tensor.dtype), "floats, whole numbers or bool")
        if belongs:
            parts.append(Buffer(name, owner, key, tensor.shape, tensor.dtype))
    return Buffers(tuple(parts))
