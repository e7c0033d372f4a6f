"""The bytes of format version 1, both ways, from stored inputs (inputs.safetensors) and not from seeds.

Tiny ones stand here as literals; of larger ones goldens.json has the SHA-256 of the payload and of what it decodes to.
A golden that is missing fails. `pytest tests/golden --regenerate-goldens` writes goldens.json anew: only for a new
codec id or a new frame version, never to make a test pass.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from thinwire import rng
from thinwire.codecs import CODECS, Context, codec_name, tag
from thinwire.errors import ConfigError
from thinwire.frame import Frame, Kind, Section, read, write
from thinwire.layout import Layout

INPUTS = load_file(Path(__file__).parent / "inputs.safetensors")
LAYOUT = Layout.of({"conv.weight": (8, 4, 3, 3), "conv.bias": (8,), "scale": (), "none": (0,), "fc.weight": (40, 42)})
FOUR = Layout.of({"a": (2,), "b": (2,)})
STORED = {"float32": ["weights", "extremes"], "uint8": ["mask"], "uint32": ["votes", "large_votes"]}

TINY = [
    ("float32", [1.0, -2.5, 0.0, 3e38], None, "0000803f000020c000000000e6b1617f"),
    ("float16", [1.0, -2.5, 0.1, 3e38], None, "003c00c1662eff7b"),
    ("bfloat16", [1.0, -2.5, 0.1, 3.4e38], None, "803f20c0cd3d7f7f"),
    ("mask", [0, 0, 0, 0], None, "0100"),
    ("mask", [1, 1, 1, 1], None, "0104"),
    ("mask", [1, 1, 0, 0], None, "010230"),
    ("mask", [0, 1, 0, 1], [5, 9, 5, 9], "0202a0"),
    ("mask", [0, 1, 1, 0], None, "010290"),
    ("votes", [0, 0, 0, 0], None, "0001000000"),
    ("votes", [7, 7, 7, 7], None, "0701070000"),
    ("votes", [3, 4, 3, 4], [3, 4, 3, 4], "04020301020150"),
    ("votes", [0, 300, 1, 0], None, "ac020100ff010201" + "00" * 253 + "017000"),
]


def within(codec, x, context):
    """The stored array as the codec takes it: labels up to its `most`; finite, where it refuses what is not."""
    if (most := getattr(codec, "most", None)) is not None:
        return np.minimum(x, np.asarray(most, x.dtype))
    if codec.dtype != "float32" or np.isfinite(x).all():
        return x
    try:
        codec.encode(x, context)
    except ConfigError:
        return np.where(np.isfinite(x), x, np.float32(0))
    return x


def digest(data):
    return sha256(data).hexdigest()


def array_digest(x):
    return digest(x.astype(x.dtype.newbyteorder("<")).tobytes())


def test_inputs_are_the_stored_ones(goldens):
    for name, x in INPUTS.items():
        goldens(f"input {name}", array_digest(x))


@pytest.mark.parametrize(("name", "x", "shared", "payload"), TINY)
def test_tiny_payloads(name, x, shared, payload):
    codec = CODECS[name]()
    context = Context(FOUR, None if shared is None else np.array(shared, np.uint32))
    assert codec.encode(np.array(x, codec.dtype), context).hex() == payload


@pytest.mark.parametrize(("name", "x", "shared", "payload"), TINY)
def test_tiny_arrays(name, x, shared, payload):
    codec = CODECS[name]()
    context = Context(FOUR, None if shared is None else np.array(shared, np.uint32))
    back = codec.decode(bytes.fromhex(payload), context)
    if name in ("float16", "bfloat16"):
        assert codec.encode(back, context).hex() == payload
        assert back[:2].tolist() == x[:2]
    else:
        assert back.tolist() == np.array(x, codec.dtype).tolist()


def test_tiny_casts():
    back = CODECS["float16"]().decode(bytes.fromhex(TINY[1][3]), Context(FOUR))
    assert back.tolist() == [1.0, -2.5, 0.0999755859375, 65504.0]
    back = CODECS["bfloat16"]().decode(bytes.fromhex(TINY[2][3]), Context(FOUR))
    assert back.tolist() == [1.0, -2.5, 0.10009765625, 3.3895313892515355e38]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_both_ways(name, shared, goldens):
    """Array to bytes and bytes to array; every codec of the table needs its goldens."""
    codec = CODECS[name]()
    given = INPUTS["change" if codec.dtype == "float32" else "counts"] if shared else None
    context = Context(LAYOUT, given, seed=11)
    for stored in STORED[codec.dtype]:
        payload = codec.encode(within(codec, INPUTS[stored], context), context)
        what = f"{name} {stored} {'shared' if shared else 'alone'}"
        goldens(f"{what} payload", digest(payload))
        goldens(f"{what} payload bytes", len(payload))
        goldens(f"{what} decoded", array_digest(codec.decode(payload, context)))


@pytest.mark.parametrize("name", CODECS)
def test_tags(name, goldens):
    goldens(f"{name} tag", f"{tag(CODECS[name]()):08x}")
    assert codec_name(tag(CODECS[name]())) == name


def test_frame_bytes():
    update = Frame(
        Kind.UPDATE, run=0x11223344, round=5, codec=0xAABBCCDD, layout=bytes(range(8)),
        sections=((Section.VALUES_SHARED, b"\x01\x02\x03"), (Section.TOTAL, b"\x09")), samples=60,
    )  # fmt: skip
    step = Frame(Kind.STEP, run=1, round=9, codec=2, layout=b"\xff" * 8, base=8, sections=((Section.STEP, b"s"),))
    request = Frame(Kind.REQUEST, run=7, round=3, codec=0, layout=bytes(8))
    for frame, golden in (
        (
            update,
            "5457"
            "01"
            "03"
            "44332211"
            "05000000"
            "ffffffff"
            "ddccbbaa"
            "0001020304050607"
            "3c000000"
            "02"
            "0200"
            "03000000"
            "0400"
            "01000000"
            "010203"
            "09"
            "914acb09",
        ),
        (
            step,
            "5457010201000000090000000800000002000000ffffffffffffffff000000000103000100000073468e2589",
        ),
        (
            request,
            "545701050700000003000000ffffffff000000000000000000000000000000000002bd6ec3",
        ),
    ):
        assert write(frame).hex() == golden
        assert read(bytes.fromhex(golden)) == frame


def test_layout_digests():
    assert LAYOUT.digest.hex() == "74a2e2a905f308a4"
    assert FOUR.digest.hex() == "3a2865d247399d8f"
    assert LAYOUT.restrict(INPUTS["mask"]).digest.hex() == "05a09f7c47d4e169"


def test_raw_bits():
    assert np.packbits(rng.raw_bits(0, "frozen-signs", 64), bitorder="little").tobytes().hex() == "a739550287fd4890"
    assert [int(word) for word in rng.raw_words(2**63, "rotation", 2)] == [3130781126748307323, 4540327680141290027]


def test_frozen_signs(goldens):
    frozen_weights = pytest.importorskip("thinwire.parameterisations", reason="needs torch").frozen_weights
    weights = frozen_weights(LAYOUT, seed=0, gain=2.0)
    assert np.abs(weights[[0, 288, 296, 297]]).tolist() == [np.float32(1 / 3)] * 2 + [2.0, np.float32(2 / np.sqrt(42))]
    assert "".join("-" if w < 0 else "+" for w in weights[:32]) == "---++-+--++---++-+-+-+-++-++++++"
    goldens("frozen weights", array_digest(weights))
