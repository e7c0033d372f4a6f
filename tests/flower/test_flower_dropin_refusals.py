"""One test for every way to be wrong: the reply is dropped by name, the others go on."""

import struct
from zlib import crc32

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from test_flower_dropin_feedback import lose, play, stepwise
from thinapp import STC, Net, arrays_of, client_app, descend, linear, record, run

from thinwire import frame as frames
from thinwire.codecs import from_config, tag
from thinwire.errors import TrainingError
from thinwire.flower.dropin import Compressed, compress
from thinwire.frame import Frame, Kind, Section

LACKS = "its ClientApp lacks mods=[thinwire.flower.compress(...)]"


class Counting(FedAvg):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)

    def aggregate_train(self, server_round, replies):
        self.replies = list(replies)
        return super().aggregate_train(server_round, self.replies)


def drop_of(change, rounds=1, codec=STC, clients=2, **options):
    """Rounds in which the replies of the last client are changed on the way. -> reason, strategy"""
    net = Net(client_app([compress(codec)]), clients)
    inner = Counting()
    strategy = Compressed(inner, codec, **options)
    steps = stepwise(net, strategy)
    for _ in range(rounds - 1):
        play(steps)

    def tamper(replies):
        number = net.node_of(clients - 1)
        return [change(reply) if reply.metadata.src_node_id == number else reply for reply in replies]

    arrays = play(steps, tamper)
    assert arrays is not None
    assert all(np.isfinite(array.numpy()).all() for array in arrays.values())
    assert [reply.has_error() for reply in inner.replies] == [False] * (clients - 1) + [True]
    (drop,) = strategy.dropped
    assert (drop.round, drop.node) == (rounds, net.node_of(clients - 1))
    assert inner.replies[-1].metadata.src_node_id == drop.node
    assert inner.replies[-1].error.reason == f"thinwire: {drop.reason}"
    assert "\n" not in drop.reason
    return drop.reason


def with_frame(edit):
    """A change of a reply that edits its frame's bytes."""

    def change(reply):
        array = reply.content["thinwire"]["frame"]
        array.data = edit(array.data)
        return reply

    return change


def with_fields(**fields):
    """A change of a reply's frame, with a checksum that fits. Fields may be functions of the frame."""

    def edit(data):
        frame = frames.read(data)
        made = {name: value(frame) if callable(value) else value for name, value in fields.items()}
        return frames.write(Frame(**{**frame.__dict__, **made}))

    return with_frame(edit)


def section(sort, data):
    """Sections with one exchanged or added."""
    return lambda frame: (*(part for part in frame.sections if part[0] != sort), (sort, data))


# The frame.


def test_flower_flipped_bit_is_refused():
    reason = drop_of(with_frame(lambda data: data[:50] + bytes([data[50] ^ 4]) + data[51:]))
    assert reason == "frame: checksum does not match"


def test_flower_truncated_frame_is_refused():
    assert "sections end at byte" in drop_of(with_frame(lambda data: data[:-1]))
    assert "at least 37 needed" in drop_of(with_frame(lambda data: b""))


def test_flower_frame_of_another_format_version_is_refused():
    def edit(data):
        body = data[:2] + b"\3" + data[3:-4]
        return body + struct.pack("<I", crc32(body))

    assert drop_of(with_frame(edit)) == "frame: format version 3, this reader knows 1 and 2"


def test_flower_frame_of_another_round_is_refused():
    replayed = []

    def replay(data):
        replayed.append(data)
        return replayed[0]

    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(Counting(), STC)
    steps = stepwise(net, strategy)
    change = with_frame(replay)
    play(steps, lambda replies: [*replies[:-1], change(replies[-1])])
    play(steps, lambda replies: [*replies[:-1], change(replies[-1])])
    assert [drop.reason for drop in strategy.dropped] == ["frame: of round 1, this is round 2"]


def test_flower_frame_of_another_run_is_refused():
    assert drop_of(with_fields(run=lambda frame: frame.run ^ 1)).startswith("frame: of run ")


def test_flower_frame_of_another_kind_is_refused():
    reason = drop_of(with_fields(kind=Kind.KEYFRAME))
    assert reason == "frame: kind keyframe, expected update or request"


def test_flower_frame_of_another_codec_names_both():
    reason = drop_of(with_fields(codec=tag(from_config({"id": "fedzip"}))))
    assert reason == (
        'codec: the ClientApp codes with fedzip, the strategy expects {"id":"stc","keep":0.1,"positions":{"id":"gaps"}}'
    )
    reason = drop_of(with_fields(codec=tag(from_config({"id": "stc", "keep": 0.2}))))
    assert "codes with stc in another configuration, the strategy expects" in reason


def test_flower_frame_of_other_arrays_is_refused():
    assert "the two ends differ in model" in drop_of(with_fields(layout=b"12345678"))


@pytest.mark.parametrize(
    "sections",
    [
        lambda frame: frame.sections * 2,
        lambda frame: (*frame.sections, (Section.STEP, b"")),
        lambda frame: (*frame.sections, (Section.TERMS, b"[]")),
    ],
    ids=["twice", "step", "terms"],
)
def test_flower_frame_with_sections_out_of_place_is_refused(sections):
    reason = drop_of(with_fields(sections=sections))
    assert reason == "frame: has sections that a update may not have: values, raw, changes once each"


def test_flower_payload_of_another_length_is_refused():
    assert drop_of(with_fields(sections=section(Section.VALUES, b"\1\2\3")))
    assert drop_of(with_fields(sections=()))


def test_flower_raw_bytes_that_do_not_fit_are_refused():
    assert drop_of(with_fields(sections=section(Section.RAW, b"1234"))) == "raw: 4 bytes, 0 expected for 0 arrays"


def test_flower_values_where_nothing_is_coded_are_refused():
    reason = drop_of(with_fields(sections=section(Section.VALUES, b"1234")), codec="float32")
    assert reason == "update: 4 bytes for no coded array"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"gone":[],"gone":[]}', "names a key twice"),
        (b"[]", "an object of gone, as and new expected"),
        (b'{"other":1}', "an object of gone, as and new expected"),
        (b'{"gone":[[1,2]]}', "[first, count] of 2 arrays expected"),
        (b'{"gone":[[-1,1]]}', "[first, count] of 2 arrays expected"),
        (b'{"gone":[[true,1]]}', "[first, count] of 2 arrays expected"),
        (b'{"gone":[[1,1],[0,1]]}', "must ascend"),
        (b'{"gone":{}}', "a list expected"),
        (b'{"as":[]}', "an object of dtypes"),
        (b'{"as":{"object":[[0,1]]}}', "dtype 'object'"),
        (b'{"new":[["a",[]],["a",[]]]}', "two records have the same name"),
        (b'{"new":[["arrays",[["w","float32",[12,5]]]]]}', "two arrays of one record have the same key"),
        (b'{"new":[["a",[["k","float32",[1]],["k","float32",[1]]]]]}', "two arrays of one record have the same key"),
        (b'{"new":[["a"]]}', "a record is [name, arrays]"),
        (b'{"new":[["a",[["k","float32"]]]]}', "an array is [key, dtype, shape]"),
        (b'{"new":[["a",[["k","float33",[1]]]]]}', "dtype 'float33'"),
        (b'{"new":[["a",[["k",7,[1]]]]]}', "dtype 7"),
        (b'{"new":[["a",[["k","float32",[1.0]]]]]}', "whole numbers from 0 on"),
        (b'{"new":[["a",[["k","float32",[-1]]]]]}', "whole numbers from 0 on"),
        (b'{"new":[["a",[["k","float32",' + b"[" + b"1," * 32 + b"1]]]]]}", "at most 32"),
        (b'{"new":[["a",[["k","float32",[4294967296,4294967296]]]]]}', "a shape of more than"),
        (b'{"new":[["a",[["k","float32",[0,4611686018427387904]]]]]}', "a shape of more than"),
        (b'{"new":[["a",[["k","float32",[1073741824]]]]]}', "raw: 0 bytes, 4294967296 expected for 1 arrays"),
    ],
)
def test_flower_hostile_manifest_is_refused(told, reason):
    assert reason in drop_of(with_fields(sections=section(Section.CHANGES, told)))


# The numbers.


def raw_reply(**arrays):
    """A reply that holds other arrays than the app made, in a frame as the mod makes it of them."""

    def trained(held, client):
        return arrays if client == 1 else descend(held, client)

    return trained


def drop_of_work(work, codec=STC, **options):
    net = Net(client_app([compress(codec, error_feedback=False)], work=work), 2)
    inner = Counting()
    strategy = Compressed(inner, codec, **options)
    play(stepwise(net, strategy))
    assert [drop.node for drop in strategy.dropped] == [net.node_of(1)]
    assert [reply.has_error() for reply in inner.replies] == [False, True]
    return strategy.dropped[0].reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16"])
def test_flower_numbers_that_are_not_finite_are_refused_after_decoding(bad, codec):
    w = arrays_of(linear())["w"]
    w[3, 2] = bad
    reason = drop_of_work(raw_reply(w=w, b=np.zeros(5, np.float32)), codec)
    assert reason == "update: 'arrays/w' holds NaN or infinite entries"


def test_flower_numbers_that_are_not_finite_are_named_where_the_codec_refuses_them():
    w = arrays_of(linear())["w"]
    w[3, 2] = np.nan
    reason = drop_of_work(raw_reply(w=w, b=np.zeros(5, np.float32)))
    assert reason == "update: 'arrays/w' holds NaN or infinite entries"


def test_flower_sum_beyond_the_dtype_is_refused():
    """What the node had was finite; the codec's one magnitude takes an entry beyond float16."""
    codec = {"id": "stc", "keep": 2 / 65}
    half = record(w=np.full((12, 5), 6e4, np.float16), b=np.zeros(5, np.float16))

    def swing(held, client):
        w = held["w"].copy()
        w[0, 0], w[0, 1] = 65504, -6e4
        return {"w": w, "b": held["b"]} if client else held

    net = Net(client_app([compress(codec)], work=swing), 2)
    strategy = Compressed(Counting(), codec)
    run(strategy, None, rounds=1, initial=half, net=net)
    assert [drop.reason for drop in strategy.dropped] == ["update: 'arrays/w' holds NaN or infinite entries"]


def test_flower_raw_array_with_nan_is_refused():
    reason = drop_of_work(raw_reply(w=arrays_of(linear())["w"], b=np.zeros(5, np.float32), more=np.float64(np.nan)))
    assert reason == "update: 'arrays/more' holds NaN or infinite entries"


def far(arrays, client):
    return {key: x + np.float32(10 * client) for key, x in arrays.items()}


@pytest.mark.parametrize("codec", ["float32", "float16", STC])
def test_flower_update_beyond_the_norm_is_refused(codec):
    reason = drop_of_work(far, codec, max_update_norm=5.0)
    assert reason.endswith("at most 5 allowed")
    norm = float(reason.split()[4].rstrip(","))
    full = 10 * np.sqrt(65)
    assert norm == pytest.approx(full if codec != STC else 10 * np.sqrt(7), rel=1e-3)


@pytest.mark.parametrize(
    ("arrays", "norm"),
    [
        ({"w": np.zeros((12, 5)), "b": np.full(5, 100, np.int64)}, 100 * np.sqrt(5)),  # whole numbers for real ones
        ({"w": np.full((5, 12), 100.0), "b": np.zeros(5)}, 100 * np.sqrt(60)),  # another shape
        ({"w": np.zeros((12, 5)), "b": np.zeros(5), "c": np.float64(100)}, 100),  # another name
        ({"w": np.zeros((12, 5)), "b": np.full(5, 1e300)}, np.inf),
        ({"w": np.full((12, 5), 100j), "b": np.zeros(5)}, 100 * np.sqrt(60)),
    ],
)
def test_flower_norm_cannot_be_got_round_by_another_dtype_shape_or_name(arrays, norm):
    reason = drop_of_work(raw_reply(**arrays), "float32", max_update_norm=50.0)
    assert float(reason.split()[4].rstrip(",")) == pytest.approx(norm, rel=1e-2)


def test_flower_whole_numbers_that_are_counters_have_no_norm():
    initial = record(w=np.zeros((12, 5), np.float32), steps=np.int64(0))

    def count(held, client):
        return {"w": held["w"] + np.float32(0.01), "steps": np.int64(held["steps"] + 10_000)}

    net = Net(client_app([compress("float16")], work=count), 2)
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), "float16", max_update_norm=1.0)
    run(strategy, None, rounds=1, initial=initial, net=net)
    assert strategy.dropped == []


# The message.


def test_flower_frame_with_more_arrays_beside_it_is_refused():
    def more(reply):
        reply.content["arrays"] = linear()
        return reply

    assert drop_of(more) == "message: a frame and 2 more arrays"


def test_flower_record_under_the_name_of_another_is_refused():
    def twice(reply):
        reply.content["arrays"] = MetricRecord({"num-examples": 1})
        return reply

    assert drop_of(twice) == "message: two records are called 'arrays'"


def test_flower_reply_under_another_message_type_is_still_checked():
    def disguise(reply):
        reply.metadata.message_type = "query"
        reply.content = RecordDict({"arrays": linear(), "metrics": reply.content["metrics"]})
        return reply

    assert drop_of(disguise) == LACKS


def test_flower_second_reply_of_a_node_is_refused():
    def twice(replies):
        again = Message(content=RecordDict(dict(replies[1].content)), metadata=replies[1].metadata)
        return [*replies, again]

    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(Counting(), STC)
    assert play(stepwise(net, strategy), twice) is not None
    assert [drop.reason for drop in strategy.dropped] == ["message: a second reply of this node"]


def test_flower_reply_of_a_node_that_was_not_asked_is_refused():
    def stranger(replies):
        replies[1].metadata.__dict__["_src_node_id"] = 99
        return replies

    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(Counting(), STC)
    play(stepwise(net, strategy), stranger)
    assert [str(drop) for drop in strategy.dropped] == [
        "node 99: message: a reply where nothing was asked in this round"
    ]


def test_flower_round_in_which_all_replies_are_refused_raises():
    def spoil(replies):
        for reply in replies:
            with_frame(lambda data: data[:-1])(reply)
        return replies

    net, inner = Net(client_app([compress(STC)]), 4), Counting()
    strategy = Compressed(inner, STC)
    with pytest.raises(TrainingError, match=r"^round 1: no reply can be used \(node \d+: frame: .*; node .*\)$"):
        play(stepwise(net, strategy), spoil)
    assert not hasattr(inner, "replies")
    assert len(strategy.dropped) == 4


def test_flower_round_without_any_reply_is_the_strategy_s_business():
    net, strategy = Net(client_app([compress(STC)]), 1), Compressed(Counting(), STC)
    assert play(stepwise(net, strategy), lose(net, 0)) is None


# A side that lacks its half of the pair.


@pytest.mark.parametrize("wrapped", [FedAvg(), FedAvg(fraction_evaluate=0.0)])
def test_flower_client_without_the_mod_is_named(wrapped):
    net, strategy = Net(client_app(), 2), Compressed(wrapped, STC)
    with pytest.raises(TrainingError, match=r"node 1001: its ClientApp lacks mods=\[thinwire.flower.compress") as error:
        run(strategy, None, net=net)
    assert "\n" not in str(error.value)
    assert [drop.reason for drop in strategy.dropped] == [LACKS, LACKS]


def test_flower_client_without_the_mod_reads_its_name_in_its_own_error():
    net, strategy = Net(client_app(), 2), Compressed(FedAvg(), STC)
    replies = net.send_and_receive(strategy.configure_train(1, linear(), ConfigRecord(), net))
    assert "thinwire.flower.compress" in replies[0].error.reason
    assert "numpy conversion" in replies[0].error.reason  # Flower's own words around it


def test_flower_client_without_the_mod_that_does_not_look_at_its_arrays_is_named_too():
    def bring(content, client):
        return RecordDict({"arrays": linear()})

    net, strategy = Net(client_app(reply=bring), 2), Compressed(FedAvg(), STC)
    with pytest.raises(TrainingError, match="lacks mods"):
        run(strategy, None, net=net)


def test_flower_one_node_without_the_mod_does_not_stop_the_others():
    net = Net(client_app([compress(STC)]), 2)
    bare, thin = client_app(), net.app
    net.app = lambda message, context: (bare if context.node_config["partition-id"] else thin)(message, context)
    strategy = Compressed(FedAvg(), STC)
    assert play(stepwise(net, strategy)) is not None
    assert [(drop.node, drop.reason) for drop in strategy.dropped] == [(net.node_of(1), LACKS)]


def test_flower_strategy_without_the_wrapper_is_named_by_the_client():
    net = Net(client_app([compress(STC)]), 2)
    messages = FedAvg().configure_train(1, linear(), ConfigRecord(), net)
    for reply in net.send_and_receive(messages):
        assert reply.error.reason == (
            "thinwire: plain arrays: the server's strategy must be wrapped, thinwire.flower.Compressed(strategy, codec)"
        )


def test_flower_client_with_another_codec_names_both_before_it_trains():
    trained = []

    def work(arrays, client):
        trained.append(client)
        return arrays

    net, strategy = Net(client_app([compress("float16")], work=work), 2), Compressed(FedAvg(), STC)
    expected = r'codec = \'{"id":"float16"}\': the server\'s strategy expects {"id":"stc","keep":0.1,'
    with pytest.raises(TrainingError, match=expected):
        run(strategy, None, net=net)
    assert trained == []


def test_flower_message_without_its_round_is_refused_by_the_client():
    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(FedAvg(), STC)
    message = strategy.configure_train(1, linear(), ConfigRecord(), net)[0]
    del message.content["thinwire-round"]
    (reply,) = net.send_and_receive([message])
    assert "says neither its round nor the last one accepted" in reply.error.reason


def mangled(edit):
    """The client's answer to a broadcast whose frame is changed."""
    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(FedAvg(), STC)
    message = strategy.configure_train(1, linear(), ConfigRecord(), net)[0]
    data = message.content["arrays"]["frame"].data
    message.content["arrays"] = ArrayRecord(
        {"frame": Array(dtype="uint8", shape=(1,), stype="thinwire.frame", data=edit(data))}
    )
    (reply,) = net.send_and_receive([message])
    return reply.error.reason


def terms(text, layout=b"12345678"):
    """A keyframe with other terms."""

    def edit(data):
        frame = frames.read(data)
        parts = ((Section.TERMS, text), *(part for part in frame.sections if part[0] != Section.TERMS))
        return frames.write(Frame(**{**frame.__dict__, "sections": parts}))

    return edit


TERMS = b'{"format":2,"records":'


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        (lambda data: data[:7], "at least 37 needed"),
        (terms(b"nonsense"), "no JSON"),
        (terms(b"[1]"), "terms: an object expected"),
        (terms(TERMS + b'[]}'), "an object of format, records and uplink expected"),
        (terms(TERMS + b'[],"uplink":{"id":"new"}}'), "a codec that this thinwire does not have"),
        (terms(TERMS + b'[],"uplink":{"id":"mask"}}'), "a codec that this thinwire does not have"),
        (terms(TERMS + b'[],"uplink":"stc"}'), "a codec that this thinwire does not have"),
        (terms(TERMS + b'[],"uplink":' + 300 * b'{"id":"topk","values":' + b"1" + 301 * b"}"), "not have"),
        (terms(TERMS + b'[],"uplink":{"id":"stc"}}'), "the two ends differ in model"),
        (terms(TERMS + b'[["a",[["k","float32",[99999999999]]]]],"uplink":{"id":"stc"},"downlink":{"id":"stc"}}'),
         "dense: 0 bytes for 99999999999 entries"),
        (terms(TERMS + b'[["a",[["k","float32",[99999999999]]]]],"uplink":{"id":"stc"}}'), "differ in model"),
        (terms(b'{"records":[],"uplink":{"id":"stc"}}'), "terms: of format 1, this thinwire knows 2: the two ends"),
        (terms(b'{"format":3,"records":[],"uplink":{"id":"stc"}}'), "terms: of format 3, this thinwire knows 2"),
        (terms(TERMS + b'[],"uplink":{"id":"stc"},"exact":[[0,1]]}'), "[first, count] of 0 arrays"),
        (terms(TERMS + b'[],"uplink":{"id":"stc"},"exact":{}}'), "a list expected"),
    ],
)  # fmt: skip
def test_flower_hostile_broadcast_is_refused_by_the_client(edit, reason):
    answer = mangled(edit)
    assert answer.startswith("thinwire: ")
    assert reason in answer
    assert "\n" not in answer


@pytest.mark.parametrize("name", ["thinwire", "thinwire-round"])
def test_flower_names_of_the_pair_s_own_are_refused(name):
    def taken(content, client):
        return RecordDict({"arrays": linear(), name: MetricRecord({"x": 1})})

    net, strategy = Net(client_app([compress(STC)], reply=taken), 2), Compressed(FedAvg(), STC)
    with pytest.raises(TrainingError, match=f"record = '{name}': another name: this one is thinwire's own"):
        run(strategy, None, net=net)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (Array(np.array(["a", "b"])), r"array arrays/w = 'str32': one of bool, int8"),
        (Array(dtype="float32", shape=(2,), stype="mine", data=b"12345678"), "array arrays/w = 'mine': only arrays"),
    ],
)
def test_flower_array_that_cannot_travel_is_named(array, reason):
    def odd(content, client):
        return RecordDict({"arrays": ArrayRecord({"w": array})})

    net, strategy = Net(client_app([compress(STC)], reply=odd), 2), Compressed(FedAvg(), STC)
    with pytest.raises(TrainingError, match=reason):
        run(strategy, None, net=net)


def test_flower_error_of_the_app_itself_is_no_refusal():
    def fail(arrays, client):
        raise MemoryError("too large")

    net, strategy = Net(client_app([compress(STC)], work=fail), 2), Compressed(FedAvg(), STC)
    result, _ = run(strategy, None, rounds=1, net=net)
    assert strategy.dropped == []
    assert len(result.arrays) == 0


def test_flower_reply_without_a_reason_is_no_refusal():
    net, strategy = Net(client_app([compress(STC)]), 2), Compressed(Counting(), STC)

    def blank(replies):
        return [replies[0], Message(error=Error(code=0), metadata=replies[1].metadata)]

    assert play(stepwise(net, strategy), blank) is not None
    assert strategy.dropped == []


@pytest.mark.parametrize("seed", range(3))
def test_flower_mutated_replies_are_refused_or_of_the_right_size(seed):
    """With a checksum that fits, so that what stands behind it is reached."""
    draw = np.random.default_rng(seed)
    net, inner = Net(client_app([compress(STC, error_feedback=False)]), 2), Counting()
    strategy = Compressed(inner, STC)
    messages = strategy.configure_train(1, linear(), ConfigRecord(), net)
    replies = net.send_and_receive(messages)
    originals = [reply.content for reply in replies]
    data = originals[1]["thinwire"]["frame"].data
    for _ in range(300):
        body = bytearray(data[:-4])
        for _ in range(draw.integers(1, 4)):
            body[draw.integers(33, len(body))] = draw.integers(256)
        mutated = bytes(body) + struct.pack("<I", crc32(bytes(body)))
        replies[0].content = originals[0]
        array = Array(dtype="uint8", shape=(1,), stype="thinwire.frame", data=mutated)
        other = RecordDict({"thinwire": ArrayRecord({"frame": array}), "metrics": originals[1]["metrics"]})
        second = Message(content=other, metadata=replies[1].metadata)
        arrays, _ = strategy.aggregate_train(1, [replies[0], second])
        assert {key: array.shape for key, array in arrays.items()} == {"w": (12, 5), "b": (5,)}
    assert len(strategy.dropped) > 100
