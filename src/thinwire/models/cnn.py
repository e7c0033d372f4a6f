"""A small convolutional network with GroupNorm, for experiments on a processor.

Not from a paper: VGG's plan (3×3 convolutions, pooling by 2, twice the channels) cut down to 11.1 million
multiply-adds a 32×32 image, with most parameters in wide convolutions on small images, where they cost little time
and FedPara shrinks them most: 10.3 times at γ = .1.
"""

from __future__ import annotations

import torch
from torch import nn

from thinwire.models.initial import he_normal
from thinwire.models.layout import channels_last
from thinwire.models.shapes import pooled

WIDTHS = (32, 48, 96, 192, 192)  # channels; every convolution but the last is pooled by 2
GROUPS = 4


class SmallCNN(nn.Module):
    """3×3 convolutions with GroupNorm, five with 32 to 192 channels unless told: 556,874 parameters at 3×32×32."""

    dense_layers: tuple[str, ...] = ("fc",)  # as FedPara leaves the classifier of VGG16

    def __init__(
        self, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10, widths: tuple[int, ...] = WIDTHS
    ) -> None:
        super().__init__()
        channels, _, _ = pooled("cnn-gn", shape, pools=len(widths) - 1)
        layers: list[nn.Module] = []
        for width in widths:
            conv = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
            layers += [conv, nn.GroupNorm(GROUPS, width), nn.MaxPool2d(2), nn.ReLU()]
            channels = width
        del layers[-2]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.  # (n, channels, height, width) -> (n, classes)."""
        x = self.features(channels_last(x))  # (n, 192, height/16, width/16)
        return self.fc(x.mean(dim=(2, 3)))
