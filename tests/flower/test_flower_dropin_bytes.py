"""The bytes of point 16 of FORMAT.md, both ways. Written out, so that a change of them is made on purpose."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import RecordDict
from thinapp import record

from thinwire.errors import NeedKeyframe
from thinwire.flower.dropin.downlink import advance, first, receive
from thinwire.flower.dropin.records import unpack
from thinwire.flower.dropin.terms import Terms, codec_of
from thinwire.flower.dropin.uplink import Address, decode, encode, request

ADDRESS = Address(run=7, round=5, node=99)
EXACT = (
    "545701010700000000000000ffffffff7bdf46edbdddc769cfaedc2100000000021000660000001100100000007b22666f726d6174223a322c"
    "227265636f726473223a5b5b22617272617973222c5b5b2277222c22666c6f61743332222c5b325d5d2c5b226e222c22666c6f61743634222c"
    "5b5d5d5d5d5d2c2275706c696e6b223a7b226964223a22666c6f61743136227d7d0000003f000000c00000000000000840db272045"
)
KEYFRAME = (
    "545701010700000000000000ffffffff2cbfdd4bc782ab9eab003d5500000000031000820000000100080000001100080000007b22646f776e"
    "6c696e6b223a7b226964223a22666c6f61743136227d2c22666f726d6174223a322c227265636f726473223a5b5b22617272617973222c5b5b"
    "2277222c22666c6f61743332222c5b325d5d2c5b226e222c22666c6f61743634222c5b5d5d5d5d5d2c2275706c696e6b223a7b226964223a22"
    "666c6f61743136227d7d0000003f000000c0000000000000084092bc5f06"
)
STEP = "545701020700000001000000000000002cbfdd4bc782ab9eab003d55000000000103000500000000003c000015fa61d4"
UPDATE = (
    "545701030700000005000000ffffffff2cbfdd4bbdddc769cfaedc210000000002010007000000120018000000000000003800007b22617322"
    "3a7b22696e743634223a5b5b312c315d5d7d7d702cca84"
)
REQUEST = "545701050700000005000000ffffffff0000000000000000000000000000000000a4d1b5a8"


def terms_of(w, downlink=None):
    manifest, arrays = unpack(RecordDict({"arrays": record(w=np.array(w, np.float32), n=np.float64(3))}))
    return Terms(manifest, codec_of("float16", "up"), downlink and codec_of(downlink, "down")), arrays


def test_flower_bytes_of_an_exact_broadcast():
    model = first(7, *terms_of([0.5, -2]))
    assert model.message(None).hex() == EXACT
    received = receive(bytes.fromhex(EXACT), None)
    assert received.terms == model.terms
    assert [array.tolist() for array in received.arrays] == [[0.5, -2], 3]


def test_flower_bytes_of_a_keyframe_and_a_step():
    model = first(7, *terms_of([0.5, -2], "float16"))
    assert model.message(None).hex() == KEYFRAME
    held = receive(bytes.fromhex(KEYFRAME), None).held
    assert advance(model, *terms_of([1.5, -2], "float16")).message(0).hex() == STEP
    received = receive(bytes.fromhex(STEP), held)
    assert [array.tolist() for array in received.arrays] == [[1.5, -2], 3]


def test_flower_bytes_of_an_update_with_a_counter_that_went_back_to_whole_numbers():
    model = first(7, *terms_of([0.5, -2]))
    manifest, reply = unpack(RecordDict({"arrays": record(w=np.array([1, -2], np.float32), n=np.int64(3))}))
    assert encode(ADDRESS, model.terms, model.arrays, manifest, reply, None).frame.hex() == UPDATE
    whole = decode(ADDRESS, model, bytes.fromhex(UPDATE))
    assert whole.manifest == manifest
    assert [(array.dtype, array.tolist()) for array in whole.arrays] == [("float32", [1, -2]), ("int64", 3)]


def test_flower_bytes_of_a_request():
    assert request(ADDRESS).hex() == REQUEST
    with pytest.raises(NeedKeyframe):
        decode(ADDRESS, first(7, *terms_of([0.5, -2])), bytes.fromhex(REQUEST))
