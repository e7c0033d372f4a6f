"""Time: who sends a payload that is well formed, small, and slow to decode wants the reader's processor.

A codec's own settings bound what an honest payload of it costs. A reader refuses what costs more, before it spends the
time: more effort, products or bits of levels than `thin`'s settings are worth, labels above the quantiser's levels,
more ones than top-k keeps, code words longer than a fixed width. No clock here: what must not run is made to fail, and
work is counted. `python -m benchmarks decoding` has the times.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from benchmarks.decoding import costly

from thinwire.codecs import (
    QSGD,
    Bitmap,
    Context,
    Fixed,
    Gaps,
    Huffman,
    KMeans,
    Lloyd,
    LogScale,
    Mask,
    Members,
    Raw,
    TernGrad,
    Thin,
    TopK,
    Uniform,
    Votes,
    from_config,
    labels,
    positions,
    rangecoder,
    varint,
)
from thinwire.codecs.thin import passes, tensor, work
from thinwire.codecs.thin.codec import Encoded
from thinwire.codecs.thin.model import ESCAPE, Model
from thinwire.codecs.thin.stream import Stream
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

LAYOUT = Layout.of({"fc": (40, 30), "conv": (8, 8, 3, 3), "bias": (40,), "head": (3, 200)})
N = LAYOUT.size
CONTEXT = Context(LAYOUT)


def update(seed=0):
    return (0.01 * np.random.default_rng(seed).standard_normal(N)).astype(np.float32)


# A client asks for more effort than the server's `thin` has.


@pytest.mark.parametrize("own", passes.SPEEDS)
@pytest.mark.parametrize("sent", [*passes.SPEEDS, "lossless"])
def test_a_payload_of_more_effort_than_the_codecs_own_is_refused(own, sent):
    payload = (Thin(lossless=True) if sent == "lossless" else Thin(speed=sent)).encode(update(), CONTEXT)
    efforts = [*passes.SPEEDS, "lossless"]
    if efforts.index(sent) <= efforts.index(own):
        assert Thin(speed=own).decode(payload, CONTEXT).shape == (N,)
        return
    with pytest.raises(DecodeError, match=f"effort {efforts.index(sent)}, this codec's own is {efforts.index(own)}"):
        Thin(speed=own).decode(payload, CONTEXT)


def test_a_lossless_codec_reads_lossless_payloads_alone():
    with pytest.raises(DecodeError, match="effort 1, this codec's own is 3"):
        Thin(lossless=True).decode(Thin().encode(update(), CONTEXT), CONTEXT)


# A client sends levels that take many bits each, all of them foreseen, so that the payload is short.


@pytest.mark.parametrize("size", [ESCAPE, 1000, 2**20])
@pytest.mark.parametrize("codec", [Thin(), Thin(nmse=0.5), Thin(bits=0.5)], ids=["nmse .05", "nmse .5", "half a bit"])
def test_levels_that_take_more_bits_than_the_target_is_worth_are_refused(codec, size):
    payload = costly(codec, CONTEXT, tensor.LEVELS, size, 0)
    with pytest.raises(DecodeError, match="more bits than the codec's target is worth"):
        codec.decode(payload, CONTEXT)
    assert np.isfinite(Thin(nmse=1e-12).decode(payload, CONTEXT)).all()


def test_the_reader_stops_where_the_bits_are_spent():
    """Not at the end of a tensor of any size: as many levels are read as the work allows."""
    payload = costly(Thin(), CONTEXT, tensor.LEVELS, 1000, 0)
    stream = Stream(payload[3:], 500)
    stream.bits(0, 2), stream.bits(0, 1)  # mode, offsets
    levels = np.zeros(LAYOUT.sizes[0], np.int32)
    plane = tensor.Known(tensor.Form(40, 30), None).entries
    with pytest.raises(DecodeError):
        stream.plane(levels, plane, 4, Model())
    each = int(work.of(np.array([1000], np.int32)))
    assert np.count_nonzero(levels) == 500 // each + 1


@pytest.mark.parametrize("speed", passes.SPEEDS)
def test_more_products_than_the_speed_has_are_refused(speed):
    layout = Layout.of({"fc": (200, 150)})
    context, own = Context(layout), passes.SPEEDS[speed].rank
    for rank, good in ((own, True), (own + 1, False), (64, own == 64)):
        stream, known = Stream(), tensor.Known(tensor.Form(200, 150), None)
        planes = [(np.ones(rank * n, np.int32), tensor.USUAL) for n in (200, 150)]
        tensor.code(stream, tensor.Piece(tensor.PRODUCTS, 0, rank, planes), known, 1.0, 4, 64, Model())
        if rank > 64:
            continue  # has no form in bytes
        body = stream.close()
        payload = bytes([list(passes.SPEEDS).index(speed) | len(body) % 64 << 2, 0, 0]) + body
        try:
            Thin(nmse=1e-9, speed=speed).decode(payload, context)
        except DecodeError as error:
            assert ("products of a tensor" in str(error)) is not good  # noqa: PT017
        else:
            assert good


def test_products_of_a_tensor_that_they_cannot_shorten_are_refused():
    """A matrix of three rows takes one product; 64 would be twenty times its entries."""
    stream = Stream()
    planes = [(np.ones(2 * n, np.int32), tensor.USUAL) for n in (3, 200)]
    known = tensor.Known(tensor.Form(3, 200), None)
    with pytest.raises(DecodeError, match="2 products of a tensor that takes 1 at most"):
        tensor.code(stream, tensor.Piece(tensor.PRODUCTS, 0, 2, planes), known, 1.0, 4, 64, Model())


# No honest payload is refused for its work.


def honest():
    draw = np.random.default_rng(1)
    normal, sign = draw.standard_normal(N), np.sign(draw.standard_normal(N))
    yield from {
        "normal": normal, "laplace": draw.laplace(size=N), "cauchy": draw.standard_cauchy(N), "signs": sign,
        "constant": np.full(N, 0.37), "ramp": np.arange(N) - N / 2, "one": np.eye(1, N, 7)[0],
        "sparse": normal * (draw.random(N) < 0.02), "whole": draw.integers(-3, 4, N), "wide": sign * np.exp(3 * normal),
        "two": sign * np.where(draw.random(N) < 0.5, 30, 1), "powers": sign * 2.0 ** draw.integers(-9, 9, N),
    }.items()  # fmt: skip


TARGETS = [{"nmse": nmse} for nmse in (0.9, 0.5, 0.05, 1e-3, 1e-6, 1e-12)]
TARGETS += [{"bits": bits} for bits in (0.02, 0.3, 1.0, 2.0, 4.0, 12.0)] + [{"bytes": count} for count in (1, 20, 400)]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_an_honest_payload_is_never_more_work_than_its_reader_takes(target):
    for name, x in honest():
        x = x.astype(np.float32)
        codec = Thin(**target)
        got: Encoded = codec.encoded(x, CONTEXT)
        assert codec.decode(got.payload, CONTEXT).shape == (N,), name
        assert got.reached or "nmse" not in target or target["nmse"] < 1e-6, name


def test_a_size_with_room_for_larger_levels_than_a_reader_takes_is_filled_no_further():
    """A constant update costs next to nothing however fine its step: the search stops where the reader would."""
    layout = Layout.of({"fc": (300, 300)})
    x = np.full(layout.size, 0.37, np.float32)
    for target in ({"bits": 0.3}, {"bits": 1.0}, {"bytes": 3000}):
        codec, context = Thin(**target), Context(layout)
        back = codec.decode(codec.encode(x, context), context)
        assert np.abs(back - x).max() < 0.02 * 0.37


def test_work_is_what_a_level_takes_bit_by_bit():
    sizes = [0, 1, 2, ESCAPE, ESCAPE + 1, ESCAPE + 2, ESCAPE + 3, ESCAPE + 4, 2**20]
    # "not zero", sign, one "larger" a step; the last step of ESCAPE has no 0 after it; then the gamma code
    expected = [1, 3, 4, 2 + ESCAPE, *(2 + ESCAPE + 2 * (size - ESCAPE).bit_length() - 1 for size in sizes[4:])]
    assert [int(work.of(np.array([size], np.int32))) for size in sizes] == expected
    assert work.of(np.array(sizes, np.int32)) == sum(expected)


# A client sends labels far above the quantiser's levels.

CODERS = [Votes(), Huffman(), Raw(), Members()]
QUANTISERS = {
    "kmeans": (KMeans(3), 2), "lloyd": (Lloyd(bits=2), 3), "uniform": (Uniform(2), 3), "qsgd": (QSGD(4), 8),
    "terngrad": (TernGrad(), 2), "logscale": (LogScale(bits=4), 15),
}  # fmt: skip


def no_decoding(monkeypatch):
    """Whoever comes as far as to decode entries fails."""

    def fail(*arguments, **named):
        raise AssertionError("decoded before it was refused")

    for module, name in (
        (rangecoder, "decode_symbols"), (rangecoder, "decode_bits"), (labels, "_decode"), (labels.bits, "unpack"),
        (labels, "places"), (positions.bits, "unpack"), (positions.bits, "rice_places"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, fail)


def with_labels(codec, coded):
    """A payload with these labels, whatever the codec's values are."""
    honest = codec.encode(update(), CONTEXT)
    if isinstance(codec, KMeans | Lloyd):
        reader = varint.Reader(honest)
        reader.sized()
        return varint.write([len(coded)]) + coded + reader.rest()
    scales = len(replace(codec, labels=Bytes()).encode(update(), CONTEXT)) - 4 * N
    return honest[:scales] + coded


@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: coder.id)
@pytest.mark.parametrize("name", QUANTISERS)
def test_labels_above_the_levels_are_refused_before_they_are_decoded(name, coder, monkeypatch):
    codec, most = QUANTISERS[name]
    codec = replace(codec, labels=coder)
    found = np.zeros(N, np.uint32)
    found[:-1:7], found[5] = most, most + 1
    payload = with_labels(codec, coder.encode(found, CONTEXT))
    no_decoding(monkeypatch)
    with pytest.raises(DecodeError, match=f"{most + 1 + (coder.id == 'huffman')} is above"):
        codec.decode(payload, CONTEXT)


@dataclass(frozen=True)
class Bytes:
    """A coder of labels that someone else wrote: it looks at no bound."""

    id: ClassVar[str] = "bytes"
    dtype: ClassVar[str] = "uint32"

    def encode(self, x, context):
        return x.astype("<u4").tobytes()

    def decode(self, payload, context):
        return np.frombuffer(payload, "<u4").astype(np.uint32)


@pytest.mark.parametrize("name", QUANTISERS)
def test_labels_of_a_coder_that_looks_at_no_bound_are_held_against_it_all_the_same(name):
    codec, most = QUANTISERS[name]
    codec = replace(codec, labels=Bytes())
    found = np.zeros(N, np.uint32)
    found[5] = most + 1
    with pytest.raises(DecodeError, match=f"a label {most + 1}, at most {most} expected"):
        codec.decode(with_labels(codec, Bytes().encode(found, CONTEXT)), CONTEXT)


# A client marks every entry where one in a hundred is kept.


@pytest.mark.parametrize("coder", [Mask(), Gaps(), Fixed()], ids=lambda coder: coder.id)
@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_more_ones_than_top_k_keeps_are_refused_before_they_are_decoded(coder, scope, monkeypatch):
    codec = TopK(0.01, scope=scope, positions=coder)
    places = (np.random.default_rng(0).random(N) < 0.9).astype(np.uint8)
    marked = coder.encode(places, CONTEXT)
    payload = varint.write([len(marked)]) + marked + bytes(2 * int(places.sum()))
    no_decoding(monkeypatch)
    with pytest.raises(DecodeError, match=r"is above|at most \d+ expected"):
        codec.decode(payload, CONTEXT)


def test_a_bitmap_with_too_many_ones_is_refused():
    marked = Bitmap().encode(np.ones(N, np.uint8), CONTEXT)
    with pytest.raises(DecodeError, match="are marked"):
        TopK(0.01, positions=Bitmap()).decode(varint.write([len(marked)]) + marked + bytes(2 * N), CONTEXT)


# A client codes frequent labels with long words.


def test_code_words_longer_than_a_fixed_width_are_refused():
    lengths = bytes([*range(1, 32), 31])  # a full prefix code; label 31 has 31 ones
    payload = varint.write([32]) + lengths + np.packbits(np.ones(31 * N, np.uint8), bitorder="little").tobytes()
    with pytest.raises(DecodeError, match="more than a fixed width takes for 32 labels"):
        Huffman().decode(payload, CONTEXT)
    x = np.random.default_rng(0).integers(0, 32, N).astype(np.uint32)  # where the words are all of the fixed width
    assert np.array_equal(Huffman().decode(Huffman().encode(x, CONTEXT), CONTEXT), x)


# Who writes a configuration nests codecs without end.


def test_a_configuration_of_too_many_codecs_is_one_line():
    nested = {"id": "float16"}
    for _ in range(60):
        nested = {"id": "each", "values": nested}
    codec = from_config(nested)
    assert codec.decode(codec.encode(update(), CONTEXT), CONTEXT).shape == (N,)
    for _ in range(5000):
        nested = {"id": "each", "values": nested}
    wide = {"id": "shortest", "codecs": [{"id": "float16"}] * 10**5}
    lists = []
    for _ in range(5000):
        lists = [lists]
    for config in (nested, wide, {"id": "shortest", "codecs": lists}):
        with pytest.raises(ConfigError, match="more than 64 in one another") as refused:
            from_config(config)
        assert len(str(refused.value)) < 200


def test_a_schedule_of_too_many_rounds_is_refused():
    pairs = [[n, 2.0] for n in range(1001)]
    with pytest.raises(ConfigError, match="at most 1000"):
        from_config({"id": "lloyd", "magnitude": pairs})
    assert from_config({"id": "lloyd", "magnitude": pairs[:1000]}).at(7).magnitude == 2.0
