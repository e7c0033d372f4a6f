"""`votes` over all bounds, and against the conditional entropy."""

import numpy as np
import pytest

from thinwire.codecs import Context, Votes, varint
from thinwire.codecs.votes import _histograms, _table_bits
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

BOUNDS = [0, 1, 2, 254, 255, 256, 257, 508, 509, 1000, 70000, 2**24 - 1]


def single(n):
    return Layout.of({"a": (n,)})


def counts_upto(bound, n, seed=0):
    """Counts with many at both ends and every edge value there is."""
    draw = np.random.default_rng(seed)
    x = draw.choice([0, bound], n).astype(np.uint32)
    inner = draw.random(n) < 0.4
    x[inner] = draw.integers(0, bound + 1, int(inner.sum()))
    edges = [v for v in (0, 1, 2, bound - 2, bound - 1, bound) if 0 <= v <= bound]
    x[: len(edges)] = edges
    return x


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("n", [6, 3000])
def test_exact_for_every_bound(bound, n):
    x = counts_upto(bound, n)
    for shared in (None, x, counts_upto(bound, n, seed=1), np.zeros(n, np.uint32)):
        context = Context(single(n), shared)
        payload = Votes().encode(x, context)
        back = Votes().decode(payload, context)
        assert back.dtype == np.uint32
        assert np.array_equal(back, x)
        assert varint.Reader(payload).next() == bound


@pytest.mark.parametrize("bound", [256, 257, 300, 509, 510])
def test_every_value_of_a_bound(bound):
    x = np.arange(bound + 1, dtype=np.uint32)
    context = Context(single(x.size))
    assert np.array_equal(Votes().decode(Votes().encode(x, context), context), x)


def test_size_is_the_entropy_given_the_old_counts():
    draw = np.random.default_rng(0)
    theta = draw.beta(0.3, 0.3, 200_000)
    old = draw.binomial(10, theta).astype(np.uint32)
    new = (old + draw.binomial(10, theta)).astype(np.uint32)
    context = Context(single(new.size), old)
    payload = Votes().encode(new, context)
    entropy = 0.0
    for key in range(11):
        counts = np.bincount(new[old == key])
        counts = counts[counts > 0]
        entropy -= (counts * np.log2(counts / counts.sum())).sum()
    assert len(payload) <= entropy / 8 * 1.005 + 11 * 40
    assert len(payload) < 0.8 * len(Votes().encode(new, Context(single(new.size))))


@pytest.mark.parametrize("n", [2, 2000])
def test_counts_of_a_settled_federation_cost_next_to_nothing(n):
    x = np.full(n, 1000, np.uint32)
    x[: n // 2] = 0
    assert len(Votes().encode(x, Context(single(n), x))) < 16


def test_rare_counts_among_very_many_entries():
    """What overran the coder's buffer when it was sized by entropy."""
    x = np.zeros(2_500_000, np.uint32)
    x[:: x.size // 255][:255] = np.arange(1, 256)
    context = Context(single(x.size))
    assert np.array_equal(Votes().decode(Votes().encode(x, context), context), x)


def test_counts_from_two_to_the_24_on_are_refused():
    with pytest.raises(ConfigError, match="counts below 16777216"):
        Votes().encode(np.array([2**24], np.uint32), Context(single(1)))


def forged(bound, bins, histograms, coded=b"", low=b"", length=None):
    head = varint.write([bound, bins, *histograms])
    return head + varint.write([len(coded) if length is None else length]) + coded + low


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "ends inside a number"),
        (forged(2**24, 1, [0, 0]), "above 16777215"),
        (forged(3, 257, [0, 0]), "257 classes of 1 keys"),
        (forged(3, 2, [0, 0]), "2 classes of 1 keys"),
        (forged(3, 1, [256, 0]), "above 255"),
        (forged(3, 1, [250, 6]), "above 5"),
        (forged(3, 1, [0, 2, 3, 3]), "3 is above 1"),
        (forged(3, 1, [0, 1, 5]), "above 4"),
        (forged(3, 1, [0, 1, 4]), "starts or ends with a count of 0"),
        (forged(3, 1, [0, 1, 0]), "starts or ends with a count of 0"),
        (forged(3, 1, [2, 0]), "the largest count is 2, not 3"),
        (forged(300, 1, [9, 0], low=b"\x1f"), "a spare bit of the last byte is set"),
        (forged(300, 1, [9, 0], low=b"\x0f"), "the largest count is 18, not 300"),
        (forged(2, 1, [2, 0], length=1), "0 bytes left, 1 of range-coded symbols"),
        (forged(3, 1, [2, 0], low=b"\0"), "1 bytes of low bits, expected 0"),
        (forged(3, 1, [2, 0], coded=b"\1\1\1\1\1\1\1\1\1"), "left over"),
        (forged(3, 1, [2, 0], coded=b"\1\0"), "zero byte"),
        (forged(3, 1, [4, 0]), "the largest count is 4, not 3"),
        (forged(300, 1, [9, 0]), "0 bytes of low bits, expected 1"),
        (forged(300, 1, [254, 0], low=b"\0"), "the largest count is 507, not 300"),
        (forged(3, 1, [0, 1, 2], coded=b"\x80"), "do not have the histogram"),
        (forged(3, 1, [0, 1, 2], coded=b"\1"), "number that the writer chooses"),
    ],
)
def test_each_way_to_be_wrong(payload, message):
    with pytest.raises(DecodeError, match=message):
        Votes().decode(payload, Context(single(4)))


@pytest.mark.parametrize("most", [1, 130, 20_000])
def test_the_search_for_classes_weighs_the_table_by_its_bytes(most):
    counts = np.random.default_rng(most).integers(0, most, (9, 256)) * (np.arange(9) % 3 > 0)[:, None]
    assert _table_bits(counts) == 8 * len(_histograms(counts))
    assert _table_bits(np.zeros((2, 256), np.int64)) == 0
