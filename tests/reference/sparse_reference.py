"""Per-client masks, DisPFL under a server and SparsyFed in plain numpy: slow and readable.

For the network of fedpm_reference. DisPFL: Dai et al., ICML 2022, Algorithms 1 and 2, with one average over the clients
of a round where the paper has each client's own over its neighbours. SparsyFed: Guastella et al., ICLR 2025, without
pruned activations, on the weights of Schwarz et al., NeurIPS 2021. Where our modules differ from the papers or their
code, this does as the modules say: an average by samples; whole numbers rounded down in DisPFL, and no weight that
comes back in the round in which it was dropped; in SparsyFed an average of w, not of θ. Imports nothing of thinwire.
"""

from dataclasses import dataclass, field
from math import cos, pi

import numpy as np
from fedpm_reference import batches, cohort, generator, key, loss_and_gradient


def best(scores, places, count):
    """The `count` places of largest score, the lower place first among equals."""
    return sorted(places, key=lambda place: (-scores[place], place))[:count]


def over_holders(updates):
    """Σ nₖ mₖ Δₖ / Σ nₖ mₖ of (samples, mask, change), place by place; 0 where no client holds it."""
    updates = list(updates)
    mean = np.zeros(len(updates[0][1]))
    for place in range(len(mean)):
        total, weight = 0.0, 0
        for samples, mask, change in updates:
            if mask[place]:
                total, weight = total + samples * float(change[place]), weight + samples
        if weight:
            mean[place] = total / weight
    return mean


@dataclass
class ClientMasks:
    """Server and clients at once. `sent`: what crossed in the last round, client -> (mask, change)."""

    shapes: list
    data: list  # of (x, y), one pair a client
    seed: int
    weights: np.ndarray  # (n,)
    density: float = 0.5
    fraction: float = 1.0
    lr: float = 0.1
    batch_size: int = 8
    epochs: int = 1
    decay: float = 0.0
    round: int = 0
    sent: dict = field(default_factory=dict)

    def __post_init__(self):
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        spans = [range(end - int(np.prod(shape)), end) for end, shape in zip(ends, self.shapes, strict=True)]
        self.tensors = [span for span, shape in zip(spans, self.shapes, strict=True) if len(shape) > 1]
        self.places = [place for span in self.tensors for place in span]  # of the weights: biases are in every mask
        self.masks = {client: self.first(client) for client in range(len(self.data))}

    def first(self, client):
        """In every tensor the ⌊density · size + ½⌋ places that draw the largest 24-bit numbers."""
        own = int(key(self.seed, 0, client, "selection")[0]) >> 1
        words = np.random.Philox(key=key(own, 0, -1, "mask")).random_raw(len(self.places))
        draws = {place: int(word) >> 40 for place, word in zip(self.places, words, strict=True)}
        mask = np.ones(len(self.weights), dtype=np.uint8)
        for span in self.tensors:
            mask[span] = 0
            mask[best(draws, span, max(1, int(self.density * len(span) + 0.5)))] = 1
        return mask

    def gradient(self, w, x, y):
        return loss_and_gradient(w, self.shapes, x, y)[1]

    def train(self, client, x, y):
        """SGD on x̂ ∘ m, its gradient ∘ m. -> w."""
        mask = self.masks[client]
        w = self.weights * mask
        order = generator(self.seed, self.round, client, "batches")
        for rows in batches(len(y), self.batch_size, self.epochs, order):
            w = w - self.lr * (self.gradient(w, x[rows], y[rows]) + self.decay * w) * mask
        return w

    def send(self, client):
        """What a client answers: its mask, and the change under it."""
        mask = self.masks[client]
        return mask, self.train(client, *self.data[client]) - self.weights * mask

    def merge(self, updates):
        return self.weights + over_holders(updates)

    def play(self):
        """One round."""
        self.round += 1
        chosen = cohort(self.seed, self.round, len(self.data), self.fraction)
        self.sent = {client: self.send(client) for client in chosen}
        self.weights = self.merge((len(self.data[client][1]), *update) for client, update in self.sent.items())


@dataclass
class DisPFL(ClientMasks):
    """Masks move after the local steps; the values sent are those of the mask before. `moves`: of the last round."""

    prune: float = 0.5
    anneal: int = 500
    moves: dict = field(default_factory=dict)

    def rate(self):
        """αₜ = α₀ / 2 · (1 + cos(t π / T)), t counted from 0; 0 from T on."""
        t = self.round - 1
        return self.prune / 2 * (1 + cos(pi * t / self.anneal)) if t < self.anneal else 0.0

    def moved(self, mask, w, slope):
        """Algorithm 2: in every layer the smallest weights leave, those of the steepest slope come."""
        new = mask.copy()
        for span in self.tensors:
            kept = [place for place in span if mask[place]]
            free = [place for place in span if not mask[place]]
            count = min(int(self.rate() * len(kept)), len(free))
            new[best(-np.abs(w), kept, count)] = 0
            new[best(np.abs(slope), free, count)] = 1
        return new

    def train(self, client, x, y):
        w = super().train(client, x, y)
        rows = generator(self.seed, self.round, client, "regrow").permutation(len(y))[: self.batch_size]
        self.moves[client] = self.moved(self.masks[client], w, self.gradient(w, x[rows], y[rows]))
        return w

    def play(self):
        self.moves.clear()
        super().play()
        self.masks |= self.moves


@dataclass
class SparsyFed(ClientMasks):
    """Clients train θ and send the density · size largest w = sign(θ) |θ|^β over all layers; the others became 0."""

    beta: float = 1.25

    def train(self, client, x, y):
        beta = np.ones(len(self.weights))
        beta[self.places] = self.beta
        theta = np.sign(self.weights) * np.abs(self.weights) ** (1 / beta)
        order = generator(self.seed, self.round, client, "batches")
        for rows in batches(len(y), self.batch_size, self.epochs, order):
            w = np.sign(theta) * np.abs(theta) ** beta
            slope = self.gradient(w, x[rows], y[rows]) * beta * np.abs(theta) ** (beta - 1)
            theta = theta - self.lr * (slope + self.decay * theta)
        return np.sign(theta) * np.abs(theta) ** beta

    def send(self, client):
        w = self.train(client, *self.data[client])
        mask = np.ones(len(w), dtype=np.uint8)
        mask[self.places] = 0
        mask[best(np.abs(w), self.places, max(1, int(self.density * len(self.places) + 0.5)))] = 1
        return mask, w * mask - self.weights

    def merge(self, updates):
        """Σ nₖ (wₖ ∘ mₖ) / Σ nₖ: exactly 0 where all have pruned."""
        pruned = [
            (samples, np.ones_like(mask), self.weights * mask + change * mask) for samples, mask, change in updates
        ]
        return over_holders(pruned)
