"""From an algorithm, a class of functions over a set-up, to the record that the runtimes drive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any

from torch import nn

from thinwire import rng
from thinwire.methods.base import ClientState, Data, Method, ServerState, Trained, Work, parameters, sample_cohort
from thinwire.methods.beside import beside
from thinwire.purity import drawing
from thinwire.versions import Held


def assemble(name: str, algorithm: Any) -> Method:
    """The record that names an algorithm's functions; what it does not define takes the plain form."""
    plain: dict[str, Any] = {
        "client_init": lambda client: {},
        "cohort": lambda state, clients, draw: sample_cohort(algorithm.setup.fraction, clients, draw),
        "version": lambda state: state.history.version,
        "error_feedback": algorithm.setup.error_feedback,
    }
    optional: dict[str, Any] = {
        "train_together": _of_one(algorithm, "train_together", ("train", "correction")),
        "mirror": _of_one(algorithm, "mirror", ("read",)),
    }
    total = parameters(algorithm.setup, algorithm.flat.model)  # a model that cannot be trained shows here
    names = [part.name for part in fields(Method) if part.name not in ("name", "run", "parameters", *optional)]
    parts = {part: plain[part] if part not in dir(algorithm) else getattr(algorithm, part) for part in names}
    method = Method(name=name, run=algorithm.setup.run, parameters=total, **parts, **optional)
    return _alike(beside(method, algorithm.flat, algorithm.setup), algorithm)


def _alike(method: Method, algorithm: Any) -> Method:
    """The method with work that begins alike in every process: same draws in a forward pass, same hidden state."""
    flat, seed, device = algorithm.flat, algorithm.setup.seed, algorithm.setup.device

    def begin(round: int, client: int, purpose: str) -> AbstractContextManager[None]:
        flat.reset()
        return drawing(rng.integer(seed, round, client, purpose), device)

    def train(held: Held, state: ClientState, data: Data) -> Trained:
        with begin(held.version + 1, data.client, "forward"):
            return method.train(held, state, data)

    def evaluate(held: Held, state: ClientState, data: Data) -> dict[str, float]:
        with begin(held.version, data.client, "forward-evaluate"):
            return method.evaluate(held, state, data)

    def model(state: ServerState) -> nn.Module:
        flat.reset()
        return method.model(state)

    def ship(state: ServerState, description: dict[str, Any]) -> bytes:
        flat.reset()
        return method.ship(state, description)

    together = method.train_together

    def train_together(cohort: Sequence[Work]) -> list[Trained]:
        assert together is not None
        with begin(cohort[0][0].version + 1, rng.SERVER, "forward"):
            return together(cohort)

    return replace(
        method, train=train, evaluate=evaluate, model=model, ship=ship, train_together=together and train_together
    )


def _of_one(algorithm: Any, name: str, others: Sequence[str]) -> Callable[..., Any] | None:
    """A function that does the same as others of its class; None where a subclass has one of those of its own."""
    kinds = type(algorithm).__mro__
    origin = next((kind for kind in kinds if name in vars(kind)), None)
    below = kinds[: kinds.index(origin)] if origin else ()
    own = any(other in vars(kind) for kind in below for other in others)
    return getattr(algorithm, name) if origin and not own else None
