"""Blocks that hold other codecs: each, prune, shortest, pooled, by-role; configurations, tags and schedules in them."""

import json

import numpy as np
import pytest

from thinwire.codecs import (
    FP8,
    M22,
    QSGD,
    STC,
    Bitmap,
    ByRole,
    Context,
    Drive,
    Each,
    Eden,
    FedZip,
    Fixed,
    Float16,
    Float32,
    Gaps,
    Huffman,
    KMeans,
    Lloyd,
    LogScale,
    Mask,
    Members,
    Pooled,
    Prune,
    Raw,
    Shortest,
    SignSGD,
    Ternary,
    TernGrad,
    TinyScript,
    TopK,
    Uniform,
    Votes,
    at,
    from_config,
    tag,
    to_config,
    varint,
)  # fmt: skip
from thinwire.codecs.selection import largest
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

SHAPES = {"conv": (8, 4, 3, 3), "none": (0, 5), "conv.bias": (8,), "small": (5, 3), "norm": (300,), "fc": (30, 20)}
LAYOUT = Layout.of(SHAPES, {"norm": "norm"})
LARGE = [True, False, False, False, False, True]  # weights of 256 entries and more
PLAN = ((0, 2.0), (3, 5.0))
NESTED = [
    TopK(0.1, "global", TopK(0.5, "tensor", KMeans(4, labels=Huffman()), Fixed()), Bitmap()),
    ByRole(TopK(0.1, "global", Lloyd(bits=3), Mask()), FP8(), 100),
    ByRole(ByRole(Eden(2.0), Float32(), 400), Float16(), 0),
    Each(Prune(0.3, Shortest((KMeans(3, labels=Members(Fixed())), KMeans(5, labels=Raw()), Float32())))),
    Shortest((Shortest((Float32(), SignSGD())), TopK(0.02, positions=Gaps()))),
    Pooled(Uniform(4, labels=Huffman())),
    Pooled(ByRole(Float32(), Float16())),
    TopK(0.3, "tensor", Pooled(Each(Ternary())), Gaps()),
    Each(ByRole(QSGD(4), TernGrad())),
    ByRole(FedZip("faithful", 0.2, 3, "best", roles=False), Drive()),
    Shortest((STC(0.05), M22(bits=3, magnitude=PLAN), TinyScript())),
    Each(M22(magnitude="auto")),
]
nested = pytest.mark.parametrize("codec", NESTED, ids=range(len(NESTED)))


def update(seed=0):
    return np.random.default_rng(seed).standard_t(3, LAYOUT.size).astype(np.float32)


def there_and_back(codec, x, context):
    return codec.decode(codec.encode(x, context), context)


@nested
def test_configuration_round_trip(codec):
    described = to_config(codec)
    through_json = json.loads(json.dumps(described))
    assert described == through_json
    assert from_config(described) == codec
    assert tag(from_config(through_json)) == tag(codec)
    assert hash(from_config(described)) == hash(codec)


@nested
@pytest.mark.parametrize("shared", [None, update(9)], ids=["alone", "shared"])
def test_round_trip(codec, shared):
    x, context = update(), Context(LAYOUT, shared, seed=5)
    codec, rebuilt = at(codec, 0), at(from_config(to_config(codec)), 0)
    payload = codec.encode(x, context)
    back = rebuilt.decode(payload, context)
    assert back.shape == x.shape
    assert np.isfinite(back).all()
    assert rebuilt.encode(x, context) == payload
    for cut in range(0, len(payload), max(1, len(payload) // 40)):
        try:
            assert codec.decode(payload[:cut], context).shape == x.shape
        except DecodeError:
            continue
    with pytest.raises(DecodeError):
        codec.decode(payload + b"\0", context)


@nested
def test_empty_layouts(codec):
    for layout in (Layout.of({}), Layout.of({"a": (0,), "b": (0, 3)})):
        assert there_and_back(at(codec, 0), np.zeros(0, np.float32), Context(layout)).shape == (0,)


# Each block alone.


def parts(context, x):
    """(context, entries) of every tensor on its own."""
    for entry in LAYOUT:
        shared = None if context.shared is None else context.shared[entry.slice]
        yield (
            Context(Layout.of({entry.name: entry.shape}, {entry.name: entry.role}), shared, context.seed),
            x[entry.slice],
        )


def test_each_is_its_tensors_one_by_one():
    x, codec = update(), TopK(0.2, "global", Float32())
    for context in (Context(LAYOUT, seed=4), Context(LAYOUT, update(3), 4)):
        payloads = [codec.encode(part, alone) for alone, part in parts(context, x)]
        assert Each(codec).encode(x, context) == b"".join(varint.write([len(p)]) + p for p in payloads)
    assert len(payloads) == len(LAYOUT)


def test_prune_is_zeros_in_place():
    x, context = update(), Context(LAYOUT)
    pruned = np.where(largest(x, 0.25, "tensor", LAYOUT), x, 0).astype(np.float32)
    assert Prune(0.25, Float32()).encode(x, context) == Float32().encode(pruned, context)
    assert np.array_equal(there_and_back(Prune(0.25, Float32()), x, context), pruned)
    assert np.array_equal(there_and_back(Prune(1.0, Float32()), x, context), x)


def test_shortest_is_the_shortest_and_the_first_on_a_tie():
    x, context = update(), Context(LAYOUT)
    choices = (Float32(), SignSGD(), Float16())
    assert Shortest(choices).encode(x, context) == b"\1" + SignSGD().encode(x, context)
    assert Shortest((Float32(), Float16(), Float16())).encode(x, context)[0] == 1
    for number, codec in enumerate(choices):
        payload = varint.write([number]) + codec.encode(x, context)
        assert np.array_equal(Shortest(choices).decode(payload, context), there_and_back(codec, x, context))
    for payload in (b"", b"\3", b"\x80\0", varint.write([2**40])):
        with pytest.raises(DecodeError):
            Shortest(choices).decode(payload, context)


def test_pooled_is_one_tensor():
    x, codec = update(), KMeans(6)
    one = Context(Layout.of({"all": (LAYOUT.size,)}, {"all": "weight"}), seed=1)
    assert Pooled(codec).encode(x, Context(LAYOUT, seed=1)) == codec.encode(x, one)
    assert len(Pooled(SignSGD()).encode(x, Context(LAYOUT))) == 4 + (LAYOUT.size + 7) // 8


def test_pooled_is_a_large_weight_to_by_role():
    x = update()
    inner = Pooled(ByRole(Float32(), SignSGD()))
    assert np.array_equal(there_and_back(inner, x, Context(LAYOUT)), x)


@pytest.mark.parametrize(("small", "large"), [(256, LARGE), (0, [True, True, False, True, False, True])])
def test_by_role_sends_large_weights_one_way_and_the_rest_the_other(small, large):
    x, context = update(), Context(LAYOUT, update(2), 3)
    first = np.repeat(large, LAYOUT.sizes)
    back = there_and_back(ByRole(Float32(), SignSGD(), small), x, context)
    assert np.array_equal(back[first], x[first])
    assert not (back[~first] == x[~first]).any()
    names = [entry for entry, chosen in zip(LAYOUT, large, strict=True) if chosen and entry.size]
    layout = Layout.of({e.name: e.shape for e in names}, {e.name: e.role for e in names})
    coded = TopK(0.1).encode(x[first], Context(layout, context.shared[first], 3))
    payload = ByRole(TopK(0.1), Float32(), small).encode(x, context)
    assert payload == varint.write([len(coded)]) + coded + x[~first].astype("<f4").tobytes()


def test_by_role_with_only_one_sort():
    for shapes in ({"a": (20, 20)}, {"a": (4,)}):
        layout = Layout.of(shapes)
        x = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
        codec = ByRole(TopK(1.0, values=Float32()), Float32())
        assert np.array_equal(there_and_back(codec, x, Context(layout)), x)


# What is refused.

HOLDERS = {
    "topk.values": lambda part: TopK(values=part),
    "by-role.weights": lambda part: ByRole(weights=part),
    "by-role.rest": lambda part: ByRole(rest=part),
    "pooled.values": Pooled,
    "each.values": Each,
    "prune.values": lambda part: Prune(values=part),
    "shortest.codecs": lambda part: Shortest((Float32(), part)),
}


@pytest.mark.parametrize("field", HOLDERS)
@pytest.mark.parametrize("wrong", [Mask(), Votes(), "float32", 3, None, Float32, {"id": "float32"}], ids=str)
def test_parts_of_another_dtype(field, wrong):
    with pytest.raises(ConfigError, match=f"{field} = .*: a codec for float32 arrays"):
        HOLDERS[field](wrong)


@pytest.mark.parametrize("field", HOLDERS)
@pytest.mark.parametrize("wrong", [{"id": "mask"}, "float16", 3, 0.5, True])
def test_wrong_parts_of_a_configuration(field, wrong):
    name, key = field.split(".")
    value = [wrong] if key == "codecs" else wrong
    with pytest.raises(ConfigError, match=field):
        from_config({"id": name, key: value})


@pytest.mark.parametrize("codecs", [(), [Float32()], Float32(), None])
def test_shortest_wants_a_tuple(codecs):
    with pytest.raises(ConfigError, match=r"shortest\.codecs"):
        Shortest(codecs)


@pytest.mark.parametrize("listed", [[], {"id": "float32"}, "float32", 3])
def test_shortest_wants_a_list_in_a_configuration(listed):
    with pytest.raises(ConfigError, match=r"shortest\.codecs"):
        from_config({"id": "shortest", "codecs": listed})


def test_lists_and_tuples_of_a_configuration_are_alike():
    parts = [{"id": "topk", "keep": 0.5}, {"id": "float32"}]
    wanted = Shortest((TopK(0.5), Float32()))
    assert from_config({"id": "shortest", "codecs": parts}) == wanted
    assert from_config({"id": "shortest", "codecs": tuple(parts)}) == wanted


def test_numbers_out_of_range():
    for keep in (0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"prune\.keep"):
            Prune(keep)
    with pytest.raises(ConfigError, match=r"by-role\.small"):
        ByRole(small=-1)


def test_errors_name_the_innermost_part():
    with pytest.raises(ConfigError, match=r"codec id = 'no'"):
        from_config({"id": "each", "values": {"id": "topk", "values": {"id": "no"}}})
    with pytest.raises(ConfigError, match=r"kmeans\.clusters"):
        from_config({"id": "shortest", "codecs": [{"id": "kmeans", "clusters": 0}]})


# Tags.


def test_whole_numbers_and_floats_have_one_tag():
    pairs = [(TopK(1), TopK(1.0)), (Prune(1), Prune(1.0)), (STC(1), STC(1.0)), (Eden(2), Eden(2.0))]
    pairs += [(M22(magnitude=2), M22(magnitude=2.0)), (M22(magnitude=((0, 2),)), M22(magnitude=((0, 2.0),)))]
    pairs += [(Each(TopK(1)), Each(TopK(1.0))), (Shortest((TopK(1),)), Shortest((TopK(1.0),)))]
    for whole, real in pairs:
        assert whole == real
        assert tag(whole) == tag(real)
        assert json.dumps(to_config(whole)) == json.dumps(to_config(real))


# Schedules.

SCHEDULED = [
    Lloyd(magnitude=PLAN),
    M22(magnitude=PLAN),
    TopK(0.1, "global", Lloyd(magnitude=PLAN)),
    ByRole(TopK(0.1, "global", Lloyd(magnitude=PLAN))),
    ByRole(M22(magnitude=PLAN), TopK(values=Lloyd(magnitude=PLAN))),
    Shortest((Float32(), Lloyd(magnitude=PLAN))),
    Each(Shortest((Shortest((M22(magnitude=PLAN),)), Pooled(Prune(0.5, Lloyd(magnitude=PLAN)))))),
]


def at_round(described, magnitude):
    """The configuration with every schedule replaced."""
    if isinstance(described, dict):
        return {k: magnitude if k == "magnitude" else at_round(v, magnitude) for k, v in described.items()}
    return [at_round(item, magnitude) for item in described] if isinstance(described, list) else described


@pytest.mark.parametrize("codec", SCHEDULED, ids=range(len(SCHEDULED)))
def test_a_schedule_is_reached_wherever_it_stands(codec):
    x, context = update(), Context(LAYOUT)
    for round, magnitude in ((0, 2.0), (2, 2.0), (3, 5.0), (100, 5.0)):
        now = at(codec, round)
        assert now == from_config(at_round(to_config(codec), magnitude))
        assert there_and_back(now, x, context).shape == x.shape
        assert at(from_config(to_config(codec)), round) == now
        payload = now.encode(x, context)
        assert np.array_equal(codec.decode(payload, context), now.decode(payload, context))
    with pytest.raises(ConfigError, match=r"lloyd\.magnitude"):
        codec.encode(x, context)


def test_m22_passes_its_schedule_down_to_lloyd():
    inner = at(M22(magnitude=PLAN), 3).inner
    assert inner.weights.values.magnitude == 5.0
    assert at(M22(magnitude=PLAN).inner, 3) == inner


@nested
def test_codecs_without_a_schedule_stay_what_they_are(codec):
    if "magnitude=((" not in repr(codec):
        assert at(codec, 7) == codec


@pytest.mark.parametrize("kind", [Pooled, Each, Prune, TopK, ByRole, Shortest])
def test_what_loses_signs_is_refused_for_updates(kind):
    """And the one line names what could be meant."""
    field = {ByRole: {"rest": LogScale()}, Shortest: {"codecs": (Float16(), LogScale())}}
    with pytest.raises(ConfigError, match=r"= 'logscale': a codec for updates, thin, .*: logscale is for magnitudes"):
        kind(**field.get(kind, {"values": LogScale()}))
