"""FedPM and FedAvg in plain numpy, slow and readable, for a network of two layers with tanh between them.

Isik et al., ICLR 2023, Algorithm 1 with its Bayesian aggregation; McMahan et al., AISTATS 2017, Algorithm 1;
Adam: Kingma and Ba, ICLR 2015, Algorithm 1. Imports nothing of thinwire: the documented draws (frozen signs, batch
order, mask samples) are derived here anew from SHA-256 and numpy's bit generators.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil

import numpy as np


def key(seed, round=0, client=-1, purpose=""):
    """Philox key of one purpose: the first 16 bytes of a SHA-256, two little-endian words."""
    return np.frombuffer(sha256(f"{seed}/{round}/{client}/{purpose}".encode()).digest()[:16], "<u8")


def generator(*what):
    return np.random.Generator(np.random.Philox(key=key(*what)))


def frozen(shapes, seed, gain):
    """± gain / √fan_in, signs from the raw bits of Philox, lowest bit of each byte first.  # (d,)."""
    d = sum(np.prod(shape) for shape in shapes)
    words = np.random.Philox(key=key(seed, 0, -1, "frozen-signs")).random_raw(ceil(d / 64))
    bits = [(int(words[i // 64]) >> (i % 64)) & 1 for i in range(d)]
    fan_in = [shapes[i - i % 2][1] for i in range(len(shapes))]  # a bias follows its weights (out, in), takes theirs
    scale = [np.full(np.prod(shape), gain / np.sqrt(n)) for shape, n in zip(shapes, fan_in, strict=True)]
    return np.where(bits, -1.0, 1.0) * np.concatenate(scale)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def forward_mask(theta, source):
    """m ~ Bernoulli(θ): θ on a grid of 16 bits against 16 bits of a draw, four draws from each 64-bit word."""
    words = source.random_raw(ceil(theta.size / 4))
    draws = np.array([(int(words[i // 4]) >> (16 * (i % 4))) & 0xFFFF for i in range(theta.size)])
    signed = np.where(draws >= 2**15, draws - 2**16, draws)
    return (signed < np.trunc(theta * 65535 - 32768)).astype(float)


def loss_and_gradient(w, shapes, x, y):
    """Mean cross-entropy of softmax(tanh(x A' + a) B' + b) and its gradient with respect to all weights (d,)."""
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    A, a, B, b = (part.reshape(shape) for part, shape in zip(np.split(w, ends[:-1]), shapes, strict=True))
    h = np.tanh(x @ A.T + a)  # (n, hidden)
    logits = h @ B.T + b  # (n, classes)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    p /= len(y)
    back = (p @ B) * (1 - h**2)  # (n, hidden)
    return loss, np.concatenate([(back.T @ x).ravel(), back.sum(0), (p.T @ h).ravel(), p.sum(0)])


@dataclass
class Adam:
    """m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; s ← s − lr · m̂ / (√v̂ + ε)."""

    lr: float
    m: float = 0.0
    v: float = 0.0
    t: int = 0

    def step(self, s, g):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        return s - self.lr * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def batches(n, batch_size, epochs, order):
    """A single sample that is left over joins the batch before it."""
    for _ in range(epochs):
        rows = list(order.permutation(n))
        while rows:
            take = batch_size + 1 if len(rows) == batch_size + 1 and batch_size > 1 else batch_size
            yield np.array(rows[:take])
            rows = rows[take:]


def cohort(seed, round, clients, fraction):
    """⌈fraction · clients⌋ clients without replacement, in ascending order."""
    size = max(1, int(np.rint(fraction * clients)))
    return sorted(generator(seed, round, -1, "cohort").choice(clients, size=size, replace=False).tolist())


@dataclass
class FedPM:
    """Server and clients at once; `scores` and `masks` of the last round are left for inspection."""

    shapes: list
    data: list  # of (x, y), one pair a client
    seed: int
    gain: float = np.sqrt(2)
    epsilon: float = 1e-4
    straight_through: str = "identity"
    prior: float = 1.0
    fraction: float = 1.0
    lr: float = 0.1
    batch_size: int = 8
    epochs: int = 1
    sparsity: float = 0.0
    round: int = 0
    scores: dict = field(default_factory=dict)
    masks: dict = field(default_factory=dict)

    def __post_init__(self):
        self.w = frozen(self.shapes, self.seed, self.gain)
        self.alpha = np.full(self.w.size, self.prior)
        self.beta = np.full(self.w.size, self.prior)
        self.theta = np.full(self.w.size, 0.5)

    def train(self, client, x, y):
        kept = np.clip(self.theta, self.epsilon, 1 - self.epsilon)
        s = np.log(kept / (1 - kept)).astype(np.float32).astype(float)
        source = np.random.SFC64(int(key(self.seed, self.round, client, "masks")[0]) >> 1)
        adam, order = Adam(self.lr), generator(self.seed, self.round, client, "batches")
        for rows in batches(len(y), self.batch_size, self.epochs, order):
            theta = sigmoid(s)
            _, g = loss_and_gradient(self.w * forward_mask(theta, source), self.shapes, x[rows], y[rows])
            g = g * self.w  # dL/dm
            if self.straight_through == "probability":
                g = g * theta
            s = adam.step(s, (g + self.sparsity / g.size) * theta * (1 - theta))
        self.scores[client] = s
        draws = generator(self.seed, self.round, client, "uplink").random(s.size, dtype=np.float32)
        return (draws < sigmoid(s)).astype(np.uint8)

    def play(self):
        """One round: θ out, masks in, α and β back to λ₀ every ⌈1/ρ⌉ rounds before they count the new masks."""
        self.round += 1
        chosen = cohort(self.seed, self.round, len(self.data), self.fraction)
        self.masks = {client: self.train(client, *self.data[client]) for client in chosen}
        if (self.round - 1) % round_up_inverse(self.fraction) == 0:
            self.alpha, self.beta = np.full(self.w.size, self.prior), np.full(self.w.size, self.prior)
        for mask in self.masks.values():
            self.alpha, self.beta = self.alpha + mask, self.beta + 1 - mask
        self.theta = (self.alpha - 1) / (self.alpha + self.beta - 2)


def round_up_inverse(fraction):
    """The least whole number of rounds k with k · fraction ≥ 1."""
    return next(k for k in range(1, 10_000) if k * fraction >= 1 - 1e-12)


@dataclass
class FedAvg:
    """x ← Σ nₖ xₖ / Σ nₖ over the clients of a round, each trained by plain SGD."""

    shapes: list
    data: list
    seed: int
    weights: np.ndarray
    fraction: float = 1.0
    lr: float = 0.1
    batch_size: int = 8
    epochs: int = 1
    round: int = 0

    def train(self, client, x, y):
        w, order = self.weights.copy(), generator(self.seed, self.round, client, "batches")
        for rows in batches(len(y), self.batch_size, self.epochs, order):
            w = w - self.lr * loss_and_gradient(w, self.shapes, x[rows], y[rows])[1]
        return w

    def play(self):
        self.round += 1
        chosen = cohort(self.seed, self.round, len(self.data), self.fraction)
        samples = np.array([len(self.data[client][1]) for client in chosen])
        trained = np.stack([self.train(client, *self.data[client]) for client in chosen])
        self.weights = (samples[:, None] * trained).sum(0) / samples.sum()
