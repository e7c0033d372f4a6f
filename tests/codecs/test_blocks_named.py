"""Named codecs are their expressions, byte for byte; what they refuse, they refuse when they are built."""

from pathlib import Path

import numpy as np
import pytest

from thinwire.codecs import (
    CODECS,
    M22,
    STC,
    ByRole,
    Context,
    Each,
    FedZip,
    Fixed,
    Float16,
    Gaps,
    Huffman,
    KMeans,
    Lloyd,
    Mask,
    Members,
    Pooled,
    Prune,
    Shortest,
    Ternary,
    TinyScript,
    TopK,
    Votes,
    tag,
)  # fmt: skip
from thinwire.errors import ConfigError
from thinwire.layout import Layout

LAYOUT = Layout.of({"conv": (8, 4, 3, 3), "conv.bias": (8,), "scale": (), "small": (5, 3), "fc": (30, 20)})


def faithful(labels, clusters=3, keep=0.01):
    return Each(Prune(keep, KMeans(clusters, 4, "linspace", labels)))


def best(keep=0.01):
    start = [KMeans(3, 4, "linspace", labels) for labels in (Huffman(), Members(Fixed()), Members(Gaps()))]
    return Each(Prune(keep, Shortest(tuple(start))))


EXPRESSIONS = [
    (FedZip(), ByRole(TopK(0.01, "tensor", KMeans(3), Mask()), Float16(), 256)),
    (FedZip(keep=0.1, clusters=7, roles=False), TopK(0.1, "tensor", KMeans(7), Mask())),
    (FedZip(scope="global"), ByRole(TopK(0.01, "global", Pooled(KMeans(3)), Mask()))),
    (FedZip("faithful"), ByRole(best())),
    (FedZip("faithful", 0.2, roles=False), best(0.2)),
    (FedZip("faithful", encoding="huffman"), ByRole(faithful(Huffman()))),
    (FedZip("faithful", encoding="positions", clusters=5), ByRole(faithful(Members(Fixed()), 5))),
    (FedZip("faithful", 0.2, encoding="gaps"), ByRole(faithful(Members(Gaps()), keep=0.2))),
    (M22(), ByRole(TopK(0.3, "global", Lloyd("gennorm", 2.0, 2), Mask()))),
    (M22(0.05, 3, "weibull", 4), ByRole(TopK(0.05, "global", Lloyd("weibull", 4.0, 3), Mask()))),
    (M22(bits=4, magnitude="auto"), ByRole(TopK(0.15, "global", Lloyd("gennorm", "auto", 4), Mask()))),
    (TinyScript(), ByRole(TopK(0.3, "global", Lloyd("weibull", 0.0, 2), Mask()))),
    (TinyScript(0.1, 1), ByRole(TopK(0.1, "global", Lloyd("weibull", 0.0, 1), Mask()))),
    (STC(), TopK(0.0025, "global", Pooled(Ternary()), Gaps())),
    (STC(0.1, Mask()), TopK(0.1, "global", Pooled(Ternary()), Mask())),
]


def update(seed=0):
    return np.random.default_rng(seed).standard_t(3, LAYOUT.size).astype(np.float32)


@pytest.mark.parametrize(("codec", "expression"), EXPRESSIONS, ids=[repr(codec) for codec, _ in EXPRESSIONS])
def test_byte_for_byte(codec, expression):
    for shared in (None, update(1)):
        x, context = update(), Context(LAYOUT, shared, seed=6)
        payload = codec.encode(x, context)
        assert payload == expression.encode(x, context)
        assert np.array_equal(codec.decode(payload, context), expression.decode(payload, context))
    assert tag(codec) != tag(expression)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: FedZip("loose"), "fedzip.variant"),
        (lambda: FedZip(encoding="zip"), "fedzip.encoding"),
        (lambda: FedZip(keep=0), "topk.keep"),
        (lambda: FedZip("faithful", keep=2), "prune.keep"),
        (lambda: FedZip(clusters=0), "kmeans.clusters"),
        (lambda: FedZip(scope="layer"), "topk.scope"),
        (lambda: M22(keep=-1), "topk.keep"),
        (lambda: M22(bits=0), "lloyd.bits"),
        (lambda: M22(family="cauchy"), "lloyd.family"),
        (lambda: M22(magnitude="much"), "lloyd.magnitude"),
        (lambda: TinyScript(bits=9), "lloyd.bits"),
        (lambda: TinyScript(keep=1.5), "topk.keep"),
        (lambda: STC(keep=0), "topk.keep"),
        (lambda: STC(positions=Votes()), "topk.positions"),
        (lambda: STC(positions=None), "topk.positions"),
    ],
)
def test_refused_at_once(build, field):
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        build()


def test_every_id_has_its_bytes_written_down():
    text = (Path(__file__).parents[2] / "FORMAT.md").read_text(encoding="utf-8")
    assert [name for name in CODECS if f"`{name}`" not in text] == []


def test_large_weights_only():
    """Everything that is not a weight of 256 entries and more arrives as float16."""
    x, context = update(), Context(LAYOUT)
    rest = np.repeat([False, True, True, True, False], LAYOUT.sizes)
    for codec in (FedZip(), FedZip("faithful"), M22(), TinyScript()):
        back = codec.decode(codec.encode(x, context), context)
        assert np.array_equal(back[rest], x[rest].astype(np.float16).astype(np.float32))


def test_pinned_zero_is_zero():
    x, context = update(), Context(LAYOUT)
    for scope, kept in (("tensor", [29, 1, 1, 2, 60]), ("global", None)):
        codec = FedZip(keep=0.1, scope=scope, roles=False)
        back = codec.decode(codec.encode(x, context), context)
        found = [np.count_nonzero(back[entry.slice]) for entry in LAYOUT]
        assert sum(found) == 91 if kept is None else found == kept
        centroids = [np.unique(back[entry.slice][back[entry.slice] != 0]).size for entry in LAYOUT]
        assert max(centroids) <= 3
        assert scope == "tensor" or np.unique(back[back != 0]).size <= 3
