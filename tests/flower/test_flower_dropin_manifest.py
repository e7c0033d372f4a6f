"""What a message says of its arrays: names where they are needed, and what differs in a reply, in few bytes."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from thinapp import record

from thinwire.flower.dropin import raw
from thinwire.flower.dropin.changes import changed, changes
from thinwire.flower.dropin.manifest import Item, Manifest, from_json, from_plain, merged, to_json, to_plain
from thinwire.flower.dropin.records import pack, unpack
from thinwire.flower.dropin.split import downward, upward
from thinwire.flower.dropin.terms import Terms, codec_of, read_terms

items = st.builds(
    lambda record, key, dtype, shape: Item(record, key, dtype, tuple(shape)),
    record=st.sampled_from(["arrays", "a", ""]),
    key=st.sampled_from(["w", "b", "zoë", "w/b", "n"]),
    dtype=st.sampled_from(["float32", "float64", "int64", "bool"]),
    shape=st.lists(st.integers(0, 3), max_size=2),
)
manifests = st.builds(
    lambda records, items: merged([*records, *(item.record for item in items)], items),
    records=st.lists(st.sampled_from(["empty", "arrays"]), max_size=2),
    items=st.lists(items, max_size=6, unique_by=lambda item: item.name),
)


@given(manifests)
@settings(max_examples=100, deadline=None)
def test_flower_manifest_round_trip(manifest):
    assert from_plain(from_json(to_json(to_plain(manifest)))) == manifest


@given(manifests, manifests)
@settings(max_examples=300, deadline=None)
def test_flower_changes_lead_from_any_manifest_to_any_other(received, reply):
    told = changes(received, reply)
    assert (told is None) == (received == reply)
    if told is not None:
        assert changed(received, from_json(to_json(told))) == reply


@given(manifests, st.sampled_from(["float16", {"id": "stc"}]), st.sampled_from([None, "float16"]))
@settings(max_examples=50, deadline=None)
def test_flower_terms_round_trip(manifest, uplink, downlink):
    terms = Terms(manifest, codec_of(uplink, "up"), codec_of(downlink, "down") if downlink else None)
    assert read_terms(terms.data) == terms
    assert read_terms(terms.data).digest == terms.digest


def network(counter, weight="float32"):
    """Twenty layers with a counter each, as BatchNorm has them."""
    layers = [[Item("arrays", f"layer.{n}.weight", weight, (3, 3)),
               Item("arrays", f"layer.{n}.num_batches_tracked", counter, ())] for n in range(20)]  # fmt: skip
    return Manifest(("arrays",), tuple(item for layer in layers for item in layer))


def test_flower_changes_cost_nothing_or_few_bytes():
    assert changes(network("int64"), network("int64")) is None
    assert len(to_json(changes(network("float64"), network("int64")))) < 160
    assert len(to_json(changes(network("int64", "float64"), network("int64")))) < 160


def test_flower_reply_in_another_order_comes_back_in_that_order():
    received = Manifest(("arrays",), (Item("arrays", "a", "float32", (2,)), Item("arrays", "b", "float32", (2,))))
    reply = Manifest(("arrays",), received.items[::-1])
    assert changed(received, changes(received, reply)) == reply
    split, base = upward(received, reply)
    assert (split.coded, base) == ((0, 1), (1, 0))


def test_flower_only_arrays_of_real_numbers_with_axes_are_coded():
    held = record(half=np.ones(2, np.float16), double=np.ones((2, 2)), scalar=np.float32(1), count=np.arange(3),
                  flags=np.ones(3, bool), waves=np.ones(2, complex), empty=np.zeros((0, 3), np.float32))  # fmt: skip
    manifest, arrays = unpack(RecordDict({"arrays": held}))
    split = downward(manifest)
    assert [manifest.items[number].key for number in split.coded] == ["half", "double", "empty"]
    assert split.layout.size == 6
    back = split.join(split.vector(arrays), [arrays[number] for number in split.rest])
    assert all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(back, arrays, strict=True))
    assert downward(manifest, frozenset({1, 6})).coded == (0,)


def test_flower_difference_of_doubles_is_taken_before_it_is_rounded():
    manifest, arrays = unpack(RecordDict({"arrays": record(x=np.full(3, 1e6 + 1e-5))}))
    split, base = upward(manifest, manifest)
    change = split.vector(arrays, [np.full(3, 1e6)])
    assert base == (0,)
    assert np.allclose(change, 1e-5, rtol=1e-4)
    assert np.allclose(split.join(change, [], [np.full(3, 1e6)])[0] - 1e6, 1e-5, rtol=1e-4)


def test_flower_big_endian_and_column_major_arrays_travel():
    big, columns = np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))
    manifest, arrays = unpack(RecordDict({"arrays": record(big=big, columns=columns)}))
    back, _ = raw.read(raw.write(manifest.items, arrays, [None, None]), manifest.items, [None, None])
    assert np.array_equal(back[0], big)
    assert np.array_equal(back[1], columns)
    packed = pack(manifest, back)
    assert isinstance(packed["arrays"], ArrayRecord)
    assert packed["arrays"]["big"].numpy().tolist() == big.tolist()


def test_flower_layout_tells_records_and_keys_apart():
    held = {"a": record(**{"b/c": np.zeros(2)}), "a/b": record(c=np.zeros(3))}
    manifest, _ = unpack(RecordDict(held))
    layout = downward(manifest).layout
    assert [entry.size for entry in layout] == [2, 3]
    assert len({entry.name for entry in layout}) == 2
