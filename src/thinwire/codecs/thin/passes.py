"""All tensors of an update at one step: chosen, written, read."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from thinwire.codecs.base import Context
from thinwire.codecs.thin import choice, tensor
from thinwire.codecs.thin.choice import Effort, Source
from thinwire.codecs.thin.model import Model
from thinwire.codecs.thin.stream import Stream
from thinwire.codecs.thin.tensor import Form, Known, Piece
from thinwire.errors import DecodeError

STEPS = 128  # of an octave
PRICE = 0.1  # steps² of error that a bit is worth
SPEEDS = {"fast": Effort(2, 24, doubt=1.25), "balanced": Effort(4, 32, doubt=2), "small": Effort(6, 64, thorough=True)}


class Pass(NamedTuple):
    """What one step k leads to: every tensor's piece, estimated bytes, squared error."""

    pieces: list[Piece]
    bytes: float
    error: float


def _fractions() -> list[float]:
    with localcontext(prec=30):
        return [float((Decimal(2).ln() * i / STEPS).exp()) for i in range(STEPS)]


_FRACTIONS = _fractions()


def step_of(k: int) -> float:
    """2^(k / 128), the same on every machine."""
    return float(np.ldexp(_FRACTIONS[k % STEPS], k // STEPS))


def sources(x: np.ndarray, context: Context, rank: int) -> list[Source]:
    """The tensors that have entries."""
    found = []
    for entry in context.layout:
        if entry.size:
            form = Form.of(entry)
            shape = (form.rows, form.cols)
            shared = None if context.shared is None else context.shared[entry.slice].reshape(shape)
            found.append(Source(x[entry.slice].reshape(shape), Known(form, shared), rank))
    return found


def choose(sources: Sequence[Source], k: int, speed: str, like: Sequence[Piece] | None = None) -> Pass:
    """The cheapest way to send every tensor at the step of k; or the way that other pieces took, levels aside."""
    step, effort = step_of(k), SPEEDS[speed]
    model, pieces, bits, error = Model(), [], 0.0, 0.0
    for i, source in enumerate(sources):
        if like is None:
            best = choice.best_piece(source, step, PRICE, model, effort)
        else:
            best = choice.piece_like(like[i], source, step, PRICE, model, effort)
        pieces.append(best.piece)
        bits, error, model = bits + best.bits, error + best.error, best.model
    return Pass(pieces, bits / 8, error)


def write(pieces: Sequence[Piece], sources: Sequence[Source], k: int, speed: str) -> bytes:
    """The range-coded stream."""
    stream, model, effort = Stream(), Model(), SPEEDS[speed]
    for piece, source in zip(pieces, sources, strict=True):
        tensor.code(stream, piece, source.known, step_of(k), effort.contexts, effort.rank, model)
    return stream.close()


def error(pieces: Sequence[Piece], sources: Sequence[Source], k: int) -> float:
    """‖x − x̂‖² of what the pieces decode to, bit for bit what the reader gets, summed in float64."""
    step = step_of(k)
    decoded = (tensor.decoded(piece, source.known, step) for piece, source in zip(pieces, sources, strict=True))
    return sum(choice.distance(source.x, back) for source, back in zip(sources, decoded, strict=True))


def read(payload: bytes, context: Context, k: int, speed: str, work: int) -> np.ndarray:
    """(n,) float32; DecodeError for an end that the writer would not choose, for values that are not finite.

    Also where the levels take more than `work` bits, or a tensor more products than the speed has.
    """
    stream, model, step, effort = Stream(payload, work), Model(), step_of(k), SPEEDS[speed]
    out = np.zeros(context.layout.size, np.float32)
    parts = [entry.slice for entry in context.layout if entry.size]
    for part, source in zip(parts, sources(out, context, 0), strict=True):
        piece = tensor.code(stream, Piece(), source.known, step, effort.contexts, effort.rank, model)
        out[part] = tensor.decoded(piece, source.known, step).ravel()
    stream.close()
    if not np.isfinite(out).all():
        raise DecodeError("thin: a value is not finite")
    return out
