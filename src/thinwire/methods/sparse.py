"""FedAvg over the entries that a mask keeps: everything that travels or is remembered has the restricted layout."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from thinwire.layout import Layout
from thinwire.methods import selection
from thinwire.methods.base import ClientState, Data
from thinwire.methods.fedavg import FedAvg, Global, State
from thinwire.parameterisations import Dense
from thinwire.tensors import FlatModel
from thinwire.versions import Held


class Kept(FlatModel):
    """A model whose vector (k,) is what a mask (n,) keeps of another's; the entries outside it are 0.

    It shares the other's memory: `parameters` and `gradient` are the whole model's.
    """

    def __init__(self, whole: FlatModel, mask: np.ndarray) -> None:
        self.__dict__.update(vars(whole))
        self.places = mask.astype(bool)  # (n,)
        self.layout = whole.layout if self.places.all() else whole.layout.restrict(mask)

    def read(self) -> np.ndarray:
        """(k,) float32, a copy."""
        return super().read()[self.places]

    def write(self, vector: np.ndarray) -> None:
        """Make the model hold a float32 vector (k,), 0 elsewhere."""
        whole = np.zeros(self.places.size, dtype=np.float32)
        whole[self.places] = vector
        super().write(whole)


class KeptDense(Dense):
    """Trains what a mask keeps: gradient ∘ mask after every backward pass.

    The optimisers start each round without memory, so that weights of 0 stay 0 under momentum, decay and Adam.
    """

    def __init__(self, flat: Kept) -> None:
        super().__init__(flat)
        kept = torch.from_numpy(flat.places.astype(np.float32))
        self.kept = None if flat.places.all() else kept.to(flat.parameters.device)  # (P,)

    def pull(self) -> None:
        """The gradient, 0 outside the mask."""
        if self.kept is not None:
            self.flat.gradient.mul_(self.kept)


class Prunable(FedAvg):
    """FedAvg that tells weights, of which a mask may keep some, from what always stays: biases and norms."""

    masks: ClassVar[bool] = True

    @cached_property
    def weights(self) -> Layout:
        """The tensors that masks choose from: (w,) entries."""
        return selection.weights_of(self.flat.layout)

    @cached_property
    def places(self) -> np.ndarray:
        """Where they stand in the vector.  # (n,) bool"""
        return selection.places_of(self.flat.layout)


@dataclass(frozen=True, eq=False)
class Sparse(FedAvg):
    """FedAvg of what a mask keeps of `whole`'s model, in its memory.

    A client's residual is of one layout, whose digest it keeps beside: under another mask it starts from 0.
    """

    mask: np.ndarray  # (n,) uint8
    whole: FedAvg

    @cached_property
    def flat(self) -> FlatModel:
        """Scratch memory: the one model of this process, restricted."""
        return Kept(self.whole.flat, self.mask)

    @cached_property
    def dense(self) -> Dense:
        """The trainee over that model."""
        flat = self.flat
        assert isinstance(flat, Kept)
        return KeptDense(flat)

    @cached_property
    def start(self) -> np.ndarray:
        """What the mask keeps of the initial weights (k,)."""
        return self.whole.start[self.mask.astype(bool)]

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """As FedAvg's, with a residual of this layout."""
        if not self.setup.error_feedback:
            return super().train(held, {}, data)
        digest = np.frombuffer(self.flat.layout.digest, dtype=np.uint8)
        own = state if np.array_equal(state.get("layout", ()), digest) else self.client_init(data.client)
        frame, kept, metrics = super().train(held, own, data)
        return frame, kept | {"layout": digest}, metrics


def move(vector: np.ndarray, old: np.ndarray, new: np.ndarray, fill: float | np.ndarray = 0.0) -> np.ndarray:
    """What a mask `old` kept, as `new` keeps it; `fill` where it did not.  # (k,), (n,), (n,) -> (k',)"""
    whole = np.zeros(old.size, dtype=vector.dtype) + np.asarray(fill, dtype=vector.dtype)
    whole[old.astype(bool)] = vector
    return whole[new.astype(bool)]


def remasked(algorithm: FedAvg, state: State, old: np.ndarray, new: np.ndarray) -> State:
    """The server's state under another mask: new weights start at 0, their optimiser's memory at its start."""
    first = algorithm.setup.server.init(old.size)
    memory = tuple(move(array, old, new, start) for array, start in zip(state.memory, first, strict=True))
    weights, residual = move(state.weights, old, new), move(state.residual, old, new)
    return replace(state, weights=weights, change=np.zeros_like(weights), residual=residual, memory=memory)


@dataclass(frozen=True)
class MaskedState(State):
    """FedAvg's state, of what the mask (n,) uint8 keeps; all ones while training is dense."""

    mask: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=np.uint8))


def mask_of(state: State) -> np.ndarray:
    """The mask that a state is under."""
    assert isinstance(state, MaskedState)
    return state.mask


def with_mask(state: State, mask: np.ndarray) -> MaskedState:
    """A state of what a mask keeps, and the mask."""
    return MaskedState(**{part.name: getattr(state, part.name) for part in fields(State)}, mask=mask)


class MaskedGlobal(Global):
    """What both ends hold: the kept weights (k,), the last step, and beside them the mask (n,) uint8."""

    @property
    def mask(self) -> np.ndarray:
        """All ones while training is dense."""
        return self.beside[0]
