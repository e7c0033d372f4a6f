"""The task: a small convolutional network on handwritten digits, dealt to nodes by label."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy, max_pool2d, relu
from torch.utils.data import DataLoader, TensorDataset

from thinwire.data import Dataset, Split, partition
from thinwire.data import load as load_dataset

CODEC = {"id": "stc", "keep": 0.01, "positions": {"id": "mask"}}  # the same on both sides of the wire
PARTITION = "dirichlet:0.5"


class Net(nn.Module):
    """Two convolutions and two dense layers for grey images of side × side pixels."""

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * (side // 4) ** 2, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.  # (n, 1, side, side) -> (n, 10)."""
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2)
        return self.fc2(relu(self.fc1(x.flatten(1))))


@lru_cache(maxsize=1)
def dataset(name: str) -> Dataset:
    """`digits`, which comes with scikit-learn, or `mnist` ($THINWIRE_DATA/mnist/*.parquet, else the hub)."""
    return load_dataset(name)


def net(name: str) -> Net:
    """A network for a data set's images."""
    return Net(dataset(name).shape[-1])


def loader(split: Split, batch_size: int, seed: int | None = None) -> DataLoader:
    """Batches of a split, shuffled if there is a seed."""
    samples = TensorDataset(torch.from_numpy(split.x), torch.from_numpy(split.y))
    order = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(samples, batch_size, shuffle=seed is not None, generator=order)


def part(name: str, number: int, parts: int, seed: int) -> Split:
    """A node's own training samples."""
    return dataset(name).train.take(partition(dataset(name), PARTITION, parts, seed, allow_empty=True)[number])


def train(model: nn.Module, batches: DataLoader, epochs: int, lr: float) -> float:
    """Train in place. -> mean loss"""
    optimizer, total = torch.optim.SGD(model.parameters(), lr=lr), 0.0
    model.train()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / max(1, epochs * len(batches))


@torch.no_grad()
def test(model: nn.Module, batches: DataLoader) -> tuple[float, float]:
    """Mean loss and accuracy in 0 … 1."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for x, y in batches:
        logits = model(x)
        loss += cross_entropy(logits, y, reduction="sum").item()
        correct += int((logits.argmax(1) == y).sum())
        count += len(y)
    return loss / max(1, count), correct / max(1, count)
