"""FedZip in plain numpy, step by step as the paper has it (arXiv 2102.01593): top-z, k-means, label bits by counting.

The oracle of `fedzip(variant="faithful")`. Nothing here is fast and nothing is packed: bits are only counted.
"""

from heapq import heapify, heappop, heappush

import numpy as np


def prune(x, keep):
    """All but the ⌊keep · n + ½⌋ largest in magnitude become 0; on a tie the earlier entry stays."""
    kept = np.argsort(-np.abs(x), kind="stable")[: max(1, int(keep * x.size + 0.5))]
    out = np.zeros_like(x)
    out[kept] = x[kept]
    return out


def cluster(x, clusters=3, iterations=4, relabel=True):
    """Lloyd's iteration from linspace(min, max): (labels, centroids).

    relabel: a last assignment to the final centroids, as scikit-learn does and as the codec does. Without it the labels
    are those from which the final centroids were made.
    """
    x = x.astype(np.float64)
    centroids = np.linspace(x.min(), x.max(), clusters)
    for _ in range(iterations):
        labels = nearest(x, centroids)
        centroids = np.array([x[labels == j].mean() if (labels == j).any() else c for j, c in enumerate(centroids)])
    return (nearest(x, centroids) if relabel else labels), centroids


def nearest(x, centroids):
    """Label of the nearest centroid, the lower one on a tie."""
    best, labels = np.abs(x - centroids[0]), np.zeros(x.size, np.int64)
    for j, centroid in enumerate(centroids[1:], start=1):
        distance = np.abs(x - centroid)
        labels[distance < best] = j
        best = np.minimum(best, distance)
    return labels


def huffman_lengths(counts):
    """Code lengths of the symbols that occur, by merging the two rarest subtrees: {symbol: bits}."""
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    lengths = {symbol: 0 for _, symbol, _ in heap}
    heapify(heap)
    while len(heap) > 1:
        (a, first, left), (b, _, right) = heappop(heap), heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heappush(heap, (a + b, first, left + right))
    return lengths


def huffman_bits(labels):
    """Length of all labels in an optimal prefix code."""
    counts = np.bincount(labels)
    return sum(bits * int(counts[symbol]) for symbol, bits in huffman_lengths(counts).items())


def entropy_bits(labels):
    """n times the entropy of the label frequencies."""
    counts = np.bincount(labels)
    p = counts[counts > 0] / labels.size
    return float(-(p * np.log2(p)).sum() * labels.size)


def gap_bits(labels):
    """The paper's charge for gaps, which no reader could take apart: ⌊log₂ gap⌋ + 1 bits, all clusters but one."""
    counts, total = np.bincount(labels), 0
    for label in np.flatnonzero(counts):
        if label != counts.argmax():
            gaps = np.diff(np.flatnonzero(labels == label), prepend=-1)
            total += int(np.floor(np.log2(gaps)).sum()) + gaps.size
    return total


def nmse(x, back):
    """‖x̂ − x‖² / ‖x‖²."""
    return float(((back - x.astype(np.float64)) ** 2).sum() / (x.astype(np.float64) ** 2).sum())
