"""LeNet-size convolutional network.

LeCun, Bottou, Bengio, Haffner: "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.
Differs from the paper: 16 and 32 channels, "same" padding, ReLU and max pooling, one hidden layer of 128.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from thinwire.models.layout import channels_last
from thinwire.models.shapes import pooled


class LeNet(nn.Module):
    """LeNet-size: two 5×5 convolutions, each pooled, then 128 units; 215,370 parameters at 28×28, 10 classes."""

    dense_layers: tuple[str, ...] = ()

    def __init__(self, shape: tuple[int, ...] = (1, 28, 28), classes: int = 10) -> None:
        super().__init__()
        channels, height, width = pooled("lenet", shape, pools=2)
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.fc1 = nn.Linear(32 * height * width, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.  # (n, channels, height, width) -> (n, classes)."""
        x = F.max_pool2d(torch.relu(self.conv1(channels_last(x))), 2)  # (n, 16, height/2, width/2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)  # (n, 32, height/4, width/4)
        x = torch.relu(self.fc1(x.flatten(1)))  # (n, 128)
        return self.fc2(x)
