"""Conv4, Conv6 and Conv10: small VGG-like networks without normalisation, as FedPM masks them.

Isik, Pase, Gündüz, Weissman, Zorzi: "Sparse Random Networks for Communication-Efficient Federated Learning",
ICLR 2023, arXiv 2209.15328; Conv4 and Conv6 after Frankle, Carbin: "The Lottery Ticket Hypothesis", ICLR 2019.
The published parameter counts hold with a bias in every layer and with 3×3 convolutions padded by 1.
"""

from __future__ import annotations

import torch
from torch import nn

from thinwire.models.layout import channels_last
from thinwire.models.shapes import pooled

HIDDEN = 256  # units in each of the two hidden fully connected layers


def convolutions(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """One block a width: two 3×3 convolutions with ReLU, then max pooling by 2."""
    layers: list[nn.Module] = []
    for width in widths:
        for inputs in (channels, width):
            layers += [nn.Conv2d(inputs, width, kernel_size=3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers)


def classifier(inputs: int, classes: int) -> nn.Sequential:
    """Two hidden layers of 256 ReLU units, then the logits.  # (n, inputs) -> (n, classes)."""
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
    )


class ConvNet(nn.Module):
    """Blocks of two convolutions and a pooling, then three fully connected layers."""

    dense_layers: tuple[str, ...] = ()

    def __init__(self, name: str, widths: tuple[int, ...], shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = pooled(name, shape, pools=len(widths))
        self.features = convolutions(channels, widths)
        self.classifier = classifier(widths[-1] * height * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.  # (n, channels, height, width) -> (n, classes)."""
        return self.classifier(self.features(channels_last(x)).flatten(1))


class Conv4(ConvNet):
    """Four 3×3 convolutions (64, 128 channels); 1,933,258 parameters at 1×28×28, 10 classes."""

    def __init__(self, shape: tuple[int, ...] = (1, 28, 28), classes: int = 10) -> None:
        super().__init__("conv4", (64, 128), shape, classes)


class Conv6(ConvNet):
    """Six 3×3 convolutions (64, 128, 256 channels); 2,262,602 parameters at 3×32×32, 10 classes."""

    def __init__(self, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10) -> None:
        super().__init__("conv6", (64, 128, 256), shape, classes)


class Conv10(ConvNet):
    """Ten 3×3 convolutions (64 to 1,024 channels); 19,197,092 parameters at 3×32×32, 100 classes."""

    def __init__(self, shape: tuple[int, ...] = (3, 32, 32), classes: int = 100) -> None:
        super().__init__("conv10", (64, 128, 256, 512, 1024), shape, classes)
