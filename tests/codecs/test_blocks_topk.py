"""Top-k and ternary values: scopes, positions given a shared array, layouts of the values, STC's bits."""

from dataclasses import dataclass
from math import log2
from typing import ClassVar

import numpy as np
import pytest

from thinwire.codecs import (
    FP8,
    STC,
    Bitmap,
    Context,
    Fixed,
    Float16,
    Float32,
    Gaps,
    KMeans,
    Lloyd,
    Mask,
    Pooled,
    Ternary,
    TopK,
    Uniform,
    Votes,
    bits,
    varint,
)  # fmt: skip
from thinwire.codecs.selection import largest, magnitude_classes
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

LAYOUT = Layout.of({"conv": (6, 5, 3), "none": (0, 2), "scale": (), "bias": (9,), "fc": (40, 12)})
POSITIONS = (Mask(), Bitmap(), Fixed(), Gaps())
SEEN = []


@dataclass(frozen=True)
class Spy:
    """float32 that notes the contexts it is given."""

    id: ClassVar[str] = "spy"
    dtype: ClassVar[str] = "float32"

    def encode(self, x, context):
        SEEN.append(context)
        return Float32().encode(x, context)

    def decode(self, payload, context):
        SEEN.append(context)
        return Float32().decode(payload, context)


def gaussian(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def mixed(seed=0):
    """The first tensor far larger than the others."""
    return gaussian(LAYOUT.size, seed) * np.where(np.arange(LAYOUT.size) < 90, 50, 1).astype(np.float32)


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda codec: codec.id)
@pytest.mark.parametrize("shared", [None, gaussian(LAYOUT.size, 8)], ids=["alone", "shared"])
def test_the_largest_entries_arrive_and_the_rest_is_zero(scope, positions, shared):
    x, context = mixed(), Context(LAYOUT, shared, seed=2)
    codec = TopK(0.1, scope, Float32(), positions)
    back = codec.decode(codec.encode(x, context), context)
    assert np.array_equal(back, np.where(largest(x, 0.1, scope, LAYOUT), x, 0))


def test_scopes_differ():
    x = mixed()
    counts = {}
    for scope in ("tensor", "global"):
        codec = TopK(0.1, scope)
        back = codec.decode(codec.encode(x, Context(LAYOUT)), Context(LAYOUT))
        counts[scope] = [int((back[entry.slice] != 0).sum()) for entry in LAYOUT]
    assert counts["tensor"] == [9, 0, 1, 1, 48]
    assert sum(counts["global"]) == 58
    assert counts["global"][0] > 50


def test_payload_byte_by_byte():
    x, context = np.array([0.5, -3, 1, 0.25, 2, -0.125, 0, 0], np.float32), Context(Layout.of({"a": (4,), "b": (4,)}))
    payload = TopK(0.25, "tensor", Float16(), Fixed()).encode(x, context)
    places = varint.write([2]) + bits.pack(np.array([1, 4]), 3)
    assert payload == varint.write([len(places)]) + places + np.array([-3, 2], "<f2").tobytes()


def test_an_empty_vector():
    for layout in (Layout.of({}), Layout.of({"a": (0,)})):
        for positions in POSITIONS:
            for scope in ("tensor", "global"):
                codec = TopK(0.5, scope, Float32(), positions)
                payload = codec.encode(np.zeros(0, np.float32), Context(layout))
                assert codec.decode(payload, Context(layout)).shape == (0,)


@pytest.mark.parametrize("shared", [None, gaussian(LAYOUT.size, 4)], ids=["alone", "shared"])
def test_values_see_the_restricted_layout_and_what_is_shared_of_it(shared):
    SEEN.clear()
    x, context = mixed(), Context(LAYOUT, shared, seed=77)
    codec = TopK(0.2, "global", Spy(), Gaps())
    codec.decode(codec.encode(x, context), context)
    mask = largest(x, 0.2, "global", LAYOUT)
    for seen in SEEN:
        assert seen.layout == LAYOUT.restrict(mask)
        assert [entry.name for entry in seen.layout] == [entry.name for entry in LAYOUT]
        assert seen.layout.size == mask.sum()
        assert seen.seed == 77
        assert shared is None if seen.shared is None else np.array_equal(seen.shared, shared[mask.astype(bool)])
    assert len(SEEN) == 2


def test_what_is_shared_makes_positions_cheaper_where_it_predicts():
    n = 50_000
    context, shared = Layout.of({"w": (n,)}), gaussian(n, 1) ** 3
    codec = TopK(0.05, "global", Ternary(), Mask())
    x = (shared + 0.3 * np.abs(shared) * gaussian(n, 2)).astype(np.float32)
    alone, given = len(codec.encode(x, Context(context))), len(codec.encode(x, Context(context, shared)))
    assert given < 0.8 * alone
    unrelated = gaussian(n, 3)
    assert len(codec.encode(unrelated, Context(context, shared))) <= len(codec.encode(unrelated, Context(context))) + 8
    back = codec.decode(codec.encode(x, Context(context, shared)), Context(context, shared))
    assert np.array_equal(back != 0, largest(x, 0.05, "global", context) == 1)


def test_positions_are_coded_by_classes_of_the_magnitude():
    x, shared = mixed(), gaussian(LAYOUT.size, 5)
    payload = TopK(0.1, "tensor", Float32(), Mask()).encode(x, Context(LAYOUT, shared))
    mask = largest(x, 0.1, "tensor", LAYOUT)
    coded = Mask().encode(mask, Context(LAYOUT, magnitude_classes(shared)))
    assert payload.startswith(varint.write([len(coded)]) + coded)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_more_marks_than_may_be_kept_are_refused(scope):
    context, codec = Context(LAYOUT), TopK(0.1, scope, Float32(), Bitmap())
    mask = largest(mixed(), 0.1, scope, LAYOUT)
    mask[np.argmin(mask)] = 1
    positions = Bitmap().encode(mask, context)
    payload = varint.write([len(positions)]) + positions + bytes(4 * int(mask.sum()))
    with pytest.raises(DecodeError, match=r"topk: \d+ entries of \d+ are marked, at most \d+ are kept"):
        codec.decode(payload, context)


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("values", [Float32(), Ternary(), KMeans(), Lloyd(bits=1, magnitude=2.0), Uniform(bits=1)])
def test_an_entry_that_is_0_is_never_kept(scope, values):
    """A tensor of zeros, one with fewer entries that are not 0 than may be kept, one with more."""
    layout = Layout.of({"none": (40,), "few": (10, 10), "many": (100,)})
    x = np.concatenate([np.zeros(40), np.where(np.arange(100) % 25 == 3, gaussian(100), 0), gaussian(100, 1)])
    x, codec = x.astype(np.float32), TopK(0.6, scope, values)
    back = codec.decode(codec.encode(x, Context(layout)), Context(layout))
    assert not back[x == 0].any()
    assert (back != 0).sum() == (64 if scope == "tensor" else 104)


def test_zeros_that_a_writer_marks_are_read():
    """As writers did while the reader asked for an exact number."""
    context, codec = Context(Layout.of({"a": (4,)})), TopK(0.5, "tensor", Float32(), Bitmap())
    payload = varint.write([1]) + b"\5" + np.array([7, 0], "<f4").tobytes()
    assert codec.decode(payload, context).tolist() == [7, 0, 0, 0]


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan"), float("inf")])
def test_keep_out_of_range(keep):
    with pytest.raises(ConfigError, match=r"topk\.keep = .*above 0, at most 1"):
        TopK(keep)


def test_fields_out_of_range():
    with pytest.raises(ConfigError, match=r"topk\.scope = 'layer': one of tensor, global"):
        TopK(scope="layer")
    for wrong in (Mask(), Votes(), "float16", None, Float16, 3):
        with pytest.raises(ConfigError, match=r"topk\.values = .*: a codec for float32 arrays"):
            TopK(values=wrong)
    for wrong in (Float16(), Votes(), "mask", Mask):
        with pytest.raises(ConfigError, match=r"topk\.positions = .*: a codec for uint8 arrays"):
            TopK(positions=wrong)


def test_top_k_of_a_top_k():
    x, context = mixed(), Context(LAYOUT)
    codec = TopK(0.5, "global", TopK(0.5, "global", Float32(), Gaps()), Mask())
    back = codec.decode(codec.encode(x, context), context)
    assert np.array_equal(back, np.where(largest(back, 0.25, "global", LAYOUT), x, 0))
    assert np.count_nonzero(back) in (145, 146)


@pytest.mark.parametrize("values", [Float16(), FP8(), KMeans(4), Ternary(), Pooled(KMeans(4)), Pooled(Ternary())])
def test_values_of_every_sort(values):
    x, context = mixed(), Context(LAYOUT)
    codec = TopK(0.2, "tensor", values)
    back = codec.decode(codec.encode(x, context), context)
    mask = largest(x, 0.2, "tensor", LAYOUT).astype(bool)
    assert not back[~mask].any()
    wanted = values.decode(values.encode(x[mask], Context(LAYOUT.restrict(mask))), Context(LAYOUT.restrict(mask)))
    assert np.array_equal(back[mask], wanted)


# Ternary and STC.


def test_ternary_byte_by_byte():
    layout = Layout.of({"a": (3,), "none": (0,), "b": (2,)})
    x = np.array([1, -2, 3, -0.0, 0.5], np.float32)
    payload = Ternary().encode(x, Context(layout))
    assert payload == np.array([2, 0.25], "<f4").tobytes() + bytes([0b01010])
    assert Ternary().decode(payload, Context(layout)).tolist() == [2, -2, 2, -0.25, 0.25]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -1.0])
def test_ternary_refuses_odd_means_and_other_lengths(odd):
    context = Context(Layout.of({"a": (3,)}))
    with pytest.raises(DecodeError, match="a scale is negative, NaN or infinite"):
        Ternary().decode(np.float32(odd).tobytes() + b"\0", context)
    for payload in (b"", bytes(4), bytes(6), bytes(4) + b"\x08"):
        with pytest.raises(DecodeError):
            Ternary().decode(payload, context)


def test_the_mean_is_the_best_magnitude():
    x, context = gaussian(500), Context(Layout.of({"a": (500,)}))
    back = Ternary().decode(Ternary().encode(x, context), context)
    mean = float(np.abs(x).mean(dtype=np.float64))
    assert np.unique(np.abs(back)).tolist() == [np.float32(mean)]
    errors = [float(((np.sign(x) * mean * factor - x) ** 2).sum()) for factor in (0.99, 1, 1.01)]
    assert errors[1] == min(errors)


@pytest.mark.parametrize("positions", [Gaps(), Mask()], ids=lambda codec: codec.id)
def test_stc_is_within_one_percent_of_its_entropy(positions):
    """n H₂(p) bits of positions, one bit of sign an entry, one magnitude; p = 1/400: 1/1152 of float32."""
    n, keep = 2_000_000, 0.0025
    layout, x = Layout.of({"a": (1000, 1500), "b": (500, 1000)}), gaussian(n)
    payload_bytes = len(STC(keep, positions).encode(x, Context(layout)))
    bound = n * -(keep * log2(keep) + (1 - keep) * log2(1 - keep)) / 8 + n * keep / 8 + 4
    assert bound - 8 <= payload_bytes <= 1.01 * bound
    assert 4 * n / payload_bytes == pytest.approx(1152, rel=0.01)
