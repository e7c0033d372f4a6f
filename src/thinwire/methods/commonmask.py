"""FedAvg under one mask that both ends know: how they come to know it, and what travels under it.

A mask that both ends can make is never sent: `random` and `layerwise` follow from the seed, `magnitude` from the
weights that both hold, without a round or a byte (after a warm start, the keyframes of late clients name it). Updates,
steps and keyframes have the layout restricted to the mask, and no positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
from torch import nn

from thinwire import frame as frames
from thinwire import rng, versions
from thinwire.codecs import Context, Mask, tag, trace
from thinwire.errors import DecodeError
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import selection
from thinwire.methods.base import ClientState, Data, Update
from thinwire.methods.fedavg import Global, State, same
from thinwire.methods.sparse import MaskedGlobal, MaskedState, Prunable, Sparse, mask_of, move, remasked, with_mask
from thinwire.methods.ssfloptions import SsflOptions
from thinwire.versions import Held, Sections


class CommonMask(Prunable):
    """FedAvg over the entries of a mask (`over`), which may come after a warm start."""

    options: SsflOptions

    @cached_property
    def _recent(self) -> list[Sparse]:
        return []

    def over(self, mask: np.ndarray) -> Sparse:
        """FedAvg of what a mask keeps; the last ones are kept as scratch memory."""
        for algorithm in self._recent:
            if np.array_equal(algorithm.mask, mask):
                return algorithm
        made = Sparse(self.setup, self.options, self.uplink, self.downlink, mask, self)
        self._recent[:] = [*self._recent[-1:], made]
        return made

    # the mask --------------------------------------------------------------------------------------------------------

    def derived(self, weights: np.ndarray) -> np.ndarray:
        """The mask that needs no client: of the seed, or of the dense weights (n,).  # (n,) uint8"""
        options = self.options
        scores = selection.random_scores(rng.integer(self.setup.seed, purpose="selection"), self.weights.size)
        if options.selection == "magnitude":
            scores = np.abs(weights[self.places])
        if options.selection == "layerwise":
            return selection.whole(self.flat.layout, selection.layerwise(scores, self.weights, options.density))
        return selection.whole(self.flat.layout, selection.select(scores, self.weights, options.density, options.floor))

    def known(self, version: int) -> np.ndarray:
        """The mask of a version whose keyframe does not hold it."""
        dense = self.options.selection == "saliency" or version < self.options.warm_start
        return np.ones(self.start.size, dtype=np.uint8) if dense else self._of_start

    @cached_property
    def _of_start(self) -> np.ndarray:
        return self.derived(self.start)

    def write_mask(self, mask: np.ndarray, old: np.ndarray | None = None) -> bytes:
        """The weights' part of a mask (n,), with one probability a tensor; or, of a mask that both hold, two."""
        return Mask().encode(mask[self.places], self._mask_context(old))

    def _mask_context(self, old: np.ndarray | None) -> Context:
        if old is None or old.all():
            return Context(self.weights)
        tensors = np.repeat(np.arange(len(self.weights), dtype=np.uint32), self.weights.sizes)
        return Context(self.weights, 2 * tensors + old[self.places])

    def read_mask(self, payload: bytes, old: np.ndarray | None = None) -> np.ndarray:
        """Inverse of `write_mask`; DecodeError unless just so many weights are kept."""
        chosen = trace.nested("mask", Mask(), payload, self._mask_context(old))
        kept, wanted = int(chosen.sum(dtype=np.int64)), self.kept_count
        if kept != wanted:
            raise DecodeError(f"mask: keeps {kept} weights, {wanted} expected")
        return selection.whole(self.flat.layout, chosen)

    @cached_property
    def kept_count(self) -> int:
        """Weights that a mask keeps."""
        return selection.count(self.weights, self.options.density, self.options.floor)

    def under(self, state: State, mask: np.ndarray) -> State:
        """The state under a new mask."""
        return with_mask(remasked(self, state, mask_of(state), mask), mask)

    # down ------------------------------------------------------------------------------------------------------------

    def init(self) -> MaskedState:
        """The initial weights, all of them unless the mask is known."""
        mask = self.known(0)
        return with_mask(self.over(mask).init(), mask)

    def broadcast(self, state: State, have: int | None) -> bytes:
        """Frame that takes a client from the version it holds (None: nothing) to the current weights and mask."""
        layout = self.over(mask_of(state)).flat.layout.digest
        head = Frame(Kind.KEYFRAME, self.setup.run, 0, tag(self.downlink), layout)
        return frames.write(self.message(state, have, head))

    def spelt_out(self, state: State) -> bytes:
        """The kept weights as float32."""
        return self.over(mask_of(state)).spelt_out(state)

    def keyframe(self, state: State) -> Sections:
        """The mask, unless it is known, and the kept weights."""
        weights = self.over(mask_of(state)).keyframe(state)
        if not self.options.tells(state.history.version):
            return weights
        return ((Section.MASK, self.write_mask(mask_of(state))), *weights)

    @cached_property
    def opening(self) -> Sections:
        """The keyframe of version 0."""
        return self.keyframe(self.init())

    def receive(self, message: bytes, held: Held[Global] | None, have: int | None) -> Held[Global]:
        """What a client holds after a broadcast; the frame's layout must be that of the mask that it leads to."""
        frame = frames.expect(
            frames.read(message), run=self.setup.run, kinds=(Kind.KEYFRAME, Kind.STEP), codec=tag(self.downlink)
        )
        steps = frame.all(Section.STEP)
        read_keyframe = partial(self.read_keyframe, alone=not steps)
        now = versions.receive(frame, held, have, read_keyframe, self.apply, same)
        algorithm = self.over(now.value.beside[0])
        frames.expect(frame, layout=algorithm.flat.layout.digest)
        if steps and now.value.change is None and not self.options.comes(now.version):
            change = algorithm.decode_step(steps[-1], now.version)
            now = replace(now, value=replace(now.value, change=change))
        return now

    def read_keyframe(self, frame: Frame, alone: bool = True) -> Global:
        """Inverse of `keyframe`. Behind one that is not `alone` come steps: the frame's layout is that of the last."""
        tells = self.options.tells(frame.round)
        mask = self.read_mask(frame.one(Section.MASK)) if tells else self.known(frame.round)
        algorithm = self.over(mask)
        frames.expect(frame, layout=algorithm.flat.layout.digest if alone else None)
        sections = tuple(part for part in frame.sections if not tells or part[0] != Section.MASK)
        return MaskedGlobal(algorithm.read_keyframe(replace(frame, sections=sections)).weights, None, (mask,))

    def apply(self, step: bytes, old: Global, version: int) -> Global:
        """Weights and mask after a step."""
        mask = old.beside[0]
        value = self.over(mask).apply(step, old, version)
        if self.options.comes(version):
            new = self.derived(value.weights)
            return MaskedGlobal(move(value.weights, mask, new), None, (new,))
        return MaskedGlobal(value.weights, value.change, (mask,))

    # up --------------------------------------------------------------------------------------------------------------

    def client_init(self, client: int) -> ClientState:
        """Nothing: what a client remembers depends on the mask, which it may not have yet."""
        return {}

    def train(self, held: Held[Global], state: ClientState, data: Data) -> tuple[bytes, ClientState, dict[str, float]]:
        """FedAvg's round on the kept weights."""
        return self.over(held.value.beside[0]).train(held, state, data)

    def read(self, state: State, client: int, message: bytes) -> Update:
        """A client's change (k,)."""
        return self.over(mask_of(state)).read(state, client, message)

    def mirror(self, held: Held[Global]) -> State | None:
        """As FedAvg's, under the mask."""
        state = super().mirror(held)
        return state and with_mask(state, held.value.beside[0])

    def merge(self, state: State, updates: Iterable[Update]) -> State:
        """FedAvg's step on the kept weights; then the mask, when it comes."""
        merged = self.over(mask_of(state)).merge(state, updates)
        comes = self.options.comes(merged.history.version)
        return self.under(merged, self.derived(merged.weights)) if comes else merged

    def model(self, state: State) -> nn.Module:
        """The server's model, 0 outside the mask."""
        return self.over(mask_of(state)).model(state)

    def evaluate(self, held: Held[Global], state: ClientState, data: Data) -> dict[str, float]:
        """As FedAvg's; fine-tuning stays within the mask."""
        return self.over(held.value.beside[0]).evaluate(held, state, data)
