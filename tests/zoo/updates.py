"""Updates that are not Gaussian, as real training makes them and as careless codecs break on: name -> (layout, x).

All are made from fixed seeds by numpy, or by a few lines of torch where a real optimiser is the point.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from thinwire.layout import Layout

LAYOUT = Layout.of({"conv": (8, 4, 3, 3), "none": (0, 5), "scale": (), "bias": (40,), "fc": (40, 30)})
MOST = np.finfo(np.float32).max


@cache
def zoo() -> dict[str, tuple[Layout, np.ndarray]]:
    """All of them. Arrays are read-only."""
    made = {name: (LAYOUT, x) for name, x in synthetic(LAYOUT.size).items()} | shapes() | trained()
    made = {name: (layout, np.array(x, np.float32)) for name, (layout, x) in made.items()}
    for _, x in made.values():
        x.setflags(write=False)
    return made


def synthetic(n: int) -> dict[str, np.ndarray]:
    """Of any size."""
    g = np.random.default_rng(0)
    sign, normal = np.where(g.random(n) < 0.5, 1.0, -1.0), g.standard_normal(n)
    made = {"constant": np.full(n, 0.3), "signs": 1e-3 * sign, "0 or c": np.where(sign > 0, 0.3, 0)}
    made |= {
        "signs within 1 %": sign * (1 + 0.01 * normal),
        "two magnitudes": sign * np.where(g.random(n) < 0.1, 10, 1),
    }
    made |= {"one-hot": np.arange(n) == n // 2, "the first alone": np.arange(n) == 0, "zeros": np.zeros(n)}
    made |= {f"{share:g} are not 0": np.where(g.random(n) < share, normal, 0) for share in (0.3, 0.1, 0.03, 0.01)}
    made |= {"minus zeros": np.where(g.random(n) < 0.1, normal, -0.0)}
    made |= {"cauchy": g.standard_cauchy(n), "log-normal": sign * np.exp(3 * normal)}
    made |= {"to 1e30": sign * 10 ** g.uniform(-30, 30, n), "normal 1e30": 1e30 * normal}
    made |= {"one huge among small": np.where(np.arange(n) == 7, 1e30, 1e-3 * normal), "largest": np.full(n, MOST)}
    made |= {"both ends": MOST * sign, "subnormal": 1e-42 * normal, "least": np.where(g.random(n) < 0.2, 1e-45, 0)}
    made |= {"uniform": g.uniform(-1, 1, n), "positive": np.abs(normal), "far from 0": 100 + normal}
    return made


def shapes() -> dict[str, tuple[Layout, np.ndarray]]:
    """Odd layouts, and updates whose layout is the point."""
    g = np.random.default_rng(1)
    rows = np.zeros((200, 16))  # an embedding: rows of tokens that did not occur have no gradient
    rows[g.permutation(200)[:12]] = g.standard_normal((12, 16))
    factors = [np.zeros((4, 60)), 0.01 * g.standard_normal((50, 4))]  # LoRA: while B is 0, A has no gradient
    apart = [s * g.standard_normal(300) for s in (1e-12, 1.0, 1e12)]
    return {
        "empty layout": (Layout.of({}), np.zeros(0)),
        "no entries": (Layout.of({"a": (0,), "b": (3, 0)}), np.zeros(0)),
        "a scalar": (Layout.of({"a": ()}), np.array([-0.7])),
        "scalars": (Layout.of({str(i): () for i in range(20)}), g.standard_normal(20)),
        "a scalar 0": (Layout.of({"a": ()}), np.zeros(1)),
        "two entries": (Layout.of({"a": (2,)}), np.array([1.0, -1e-3])),
        "embedding": (Layout.of({"emb.weight": (200, 16)}), rows.ravel()),
        "LoRA, first step": (Layout.of({"A": (4, 60), "B": (50, 4)}), np.concatenate([f.ravel() for f in factors])),
        "tensors of unlike size": (Layout.of({"a": (300,), "b": (300,), "c": (300,)}), np.concatenate(apart)),
        "a tensor of zeros": (
            Layout.of({"a": (20, 20), "b": (400,)}),
            np.append(g.standard_normal(400), np.zeros(400)),
        ),
    }


def trained() -> dict[str, tuple[Layout, np.ndarray]]:
    """Real ones: a small network's change over one step, or a few, on data with dead inputs."""
    made = {}
    for name, steps, optimiser in (
        ("Adam, 1 step", 1, lambda p: torch.optim.Adam(p, lr=1e-3)),
        ("Adam, 5 steps", 5, lambda p: torch.optim.Adam(p, lr=1e-3)),
        ("SGD, 1 step", 1, lambda p: torch.optim.SGD(p, lr=0.1)),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5))
            x, y = torch.randn(64, 30), torch.randint(0, 5, (64,))
        x[:, :10] = 0  # as the border of a picture: no gradient
        before = [p.detach().clone() for p in model.parameters()]
        rule = optimiser(model.parameters())
        for _ in range(steps):
            rule.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            rule.step()
        change = [(p.detach() - b).numpy().ravel() for p, b in zip(model.parameters(), before, strict=True)]
        shapes_of = {n: tuple(p.shape) for n, p in model.named_parameters()}
        made[name] = (Layout.of(shapes_of), np.concatenate(change))
    return made


def random_update(draw: np.random.Generator) -> tuple[Layout, np.ndarray]:
    """One of the synthetic kinds, or a mixture of two, in a random layout and on a random scale."""
    shape = tuple(int(k) for k in draw.integers(1, 24, int(draw.integers(1, 4))))
    layout = Layout.of({"a": shape, "b": (int(draw.integers(0, 30)),)})
    kinds = list(synthetic(layout.size).values())
    one, other = (kinds[int(k)].astype(np.float64) for k in draw.integers(0, len(kinds), 2))
    x = one if draw.random() < 0.6 else np.where(draw.random(layout.size) < 0.5, one, other)
    most = max(float(np.abs(x).max()), 1e-45)
    scale = min(10.0 ** draw.uniform(-12, 12), float(MOST) / most)
    return layout, (draw.permutation(x) * scale).astype(np.float32)
