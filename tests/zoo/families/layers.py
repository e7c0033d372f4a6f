"""Models of other kinds of layers: attention, recurrence, convolution, embeddings."""

import torch
from tests.zoo.families.pieces import WIDTH, Entry, Net, Shape, image
from torch import nn


class Text(nn.Module):
    """An embedding, `body` over its sequence (n, 12, 8), and logits (n, 12, classes)."""

    def __init__(self, shape, classes, width=8, **how):
        super().__init__()
        self.embedding, self.o = nn.Embedding(classes, 8, **how), nn.Linear(width, classes)

    def body(self, h):
        return torch.relu(h)

    def forward(self, x):
        return self.o(self.body(self.embedding(x)))


class Padded(Text):
    """Character 0 is padding: its row of the embedding stays 0."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes, padding_idx=0)


class MaxNorm(Text):
    """The embedding's rows are cut back in forward."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes, max_norm=1.0)


class Sparse(Text):
    """The embedding's gradient is a sparse tensor."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes, sparse=True)


class Attention(Text):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def body(self, h):
        return self.attention(h, h, h, need_weights=False)[0]


class Encoder(Text):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)

    def body(self, h):
        mask = nn.Transformer.generate_square_subsequent_mask(h.shape[1])
        return self.layer(h, src_mask=mask, is_causal=True)


class BiLSTM(Text):
    def __init__(self, shape, classes):
        super().__init__(shape, classes, width=12)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)

    def body(self, h):
        return self.lstm(h)[0]


class GRU(Text):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def body(self, h):
        return self.gru(h)[0]


class Projected(Text):
    """An LSTM with a projection of its output."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.lstm = nn.LSTM(8, 12, batch_first=True, proj_size=8)

    def body(self, h):
        return self.lstm(h)[0]


class Cell(Text):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.cell = nn.GRUCell(8, 8)

    def body(self, h):
        state, states = torch.zeros(len(h), 8), []
        for position in range(h.shape[1]):
            state = self.cell(h[:, position], state)
            states.append(state)
        return torch.stack(states, 1)


class Bag(Net):
    """An EmbeddingBag over a vector's signs."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.bag = nn.EmbeddingBag(2 * shape[0], classes)

    def forward(self, x):
        places = torch.arange(x.shape[1]) * 2 + (x > 0).long()
        return super().forward(x) + self.bag(places)


class Signal(nn.Module):
    """A Conv1d over the vector as a signal."""

    def __init__(self, shape, classes):
        super().__init__()
        self.c, self.o = nn.Conv1d(1, 4, 3), nn.Linear(4 * (shape[0] - 2), classes)

    def forward(self, x):
        return self.o(torch.relu(self.c(x[:, None])).flatten(1))


class Bilinear(Net):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.c, self.p = nn.Bilinear(WIDTH, WIDTH, WIDTH), nn.PReLU()

    def hidden(self, h):
        return self.p(self.c(h, h))


def grouped(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.Conv2d(4, 4, 3, padding=1, groups=2))


def depthwise(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1))


def transposed(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.ConvTranspose2d(4, 4, 3, padding=1))


def channels_last(shape: Shape, classes: int) -> nn.Module:
    return image(classes, nn.Conv2d(4, 4, 3, padding=1)).to(memory_format=torch.channels_last)


def lazy_linear(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], WIDTH), nn.ReLU(), nn.LazyLinear(classes))


def lazy_batchnorm(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], WIDTH), nn.LazyBatchNorm1d(), nn.Linear(WIDTH, classes))


ZOO = {
    "Embedding": Entry(Text, "text"),
    "Embedding with padding": Entry(Padded, "text"),
    "Embedding with max_norm": Entry(MaxNorm, "text", right="either"),
    "Embedding with sparse gradients": Entry(Sparse, "text", right="either"),
    "EmbeddingBag": Entry(Bag),
    "MultiheadAttention": Entry(Attention, "text"),
    "TransformerEncoderLayer": Entry(Encoder, "text"),
    "LSTM, both directions": Entry(BiLSTM, "text"),
    "LSTM, projected": Entry(Projected, "text"),
    "GRU": Entry(GRU, "text"),
    "GRUCell": Entry(Cell, "text"),
    "Conv1d": Entry(Signal),
    "Conv2d, grouped": Entry(grouped, "images"),
    "Conv2d, depthwise": Entry(depthwise, "images"),
    "ConvTranspose2d": Entry(transposed, "images"),
    "Conv2d, channels last": Entry(channels_last, "images", right="either"),
    "Bilinear and PReLU": Entry(Bilinear),
    "LazyLinear": Entry(lazy_linear, right="refused"),
    "LazyBatchNorm1d": Entry(lazy_batchnorm, right="refused"),
}
