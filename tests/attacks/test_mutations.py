"""Thousands of mutated frames and payloads: refused in one known way, or a result of the right size. Nothing else.

Half of the mutated frames get a checksum that fits, so that what stands behind it is reached. Every decode is watched:
under a second, and no memory beyond a bound that does not depend on what the bytes say. `python -m benchmarks.fuzz`
plays millions of them, on more methods.
"""

import struct
import tracemalloc
from time import perf_counter

import numpy as np
import pytest
from benchmarks.fuzz.mutators import mended, mutations
from benchmarks.fuzz.targets import LAYOUT, arrays, contexts, real_frames
from torch import nn

from thinwire import frame as frames
from thinwire.codecs import CODECS, Context, Float16, tag, varint
from thinwire.errors import DecodeError, NeedKeyframe
from thinwire.frame import Frame, Kind, Section
from thinwire.methods import METHODS, Data, Setup
from thinwire.train import Local

PEAK_BYTES = 64 * 2**20
SECONDS = 1.0


def watched(decode, layout_bytes, *refusals):
    """What a decode gives, None if it refuses; asserts time and memory."""
    tracemalloc.start()
    began = perf_counter()
    try:
        return decode()
    except refusals:
        return None
    finally:
        seconds, peak = perf_counter() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < SECONDS
        assert peak <= PEAK_BYTES + 16 * layout_bytes


# Codecs.


@pytest.mark.parametrize("name", CODECS)
def test_mutated_payloads(name):
    codec = CODECS[name]()
    for context in contexts(codec.dtype, LAYOUT.size):
        payloads = [codec.encode(x, context) for x in arrays(codec, LAYOUT.size)]
        codec.decode(payloads[0], context)  # compiled before it is timed
        for payload in mutations(payloads, 400, seed=len(name)):
            back = watched(lambda p=payload, c=context: codec.decode(p, c), 4 * LAYOUT.size, DecodeError)
            assert back is None or (back.shape == (LAYOUT.size,) and back.dtype == codec.dtype)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("number", [2**20, 2**24 - 1, 2**31, 2**32 - 1, 2**56 - 1])
def test_hostile_numbers_in_front_allocate_nothing(name, number):
    codec, context = CODECS[name](), Context(LAYOUT)
    codec.decode(codec.encode(arrays(codec, LAYOUT.size)[0], context), context)
    for front in range(4):
        payload = varint.write([1] * front + [number] * (8 - front))
        assert watched(lambda p=payload: codec.decode(p, context), 4 * LAYOUT.size, DecodeError) is None


@pytest.mark.parametrize("name", CODECS)
def test_counts_as_large_as_may_be_shared_fold_before_they_are_tabled(name):
    """The receiver's own counts may be large: they must not become a table of as many rows."""
    codec = CODECS[name]()
    if codec.dtype == "float32":
        shared = np.full(LAYOUT.size, 1e30, np.float32)
    else:
        shared = np.linspace(0, 2**24 - 1, LAYOUT.size).astype(np.uint32)
    context, x = Context(LAYOUT, shared), arrays(codec, LAYOUT.size)[0]
    codec.encode(x, context)
    payload = watched(lambda: codec.encode(x, context), 4 * LAYOUT.size)
    assert watched(lambda: codec.decode(payload, context), 4 * LAYOUT.size).shape == x.shape


# Frames.


@pytest.mark.parametrize("mend", [False, True])
def test_mutated_frames(mend):
    """What passes is a frame: written again, it is the bytes that were read."""
    for data in mutations(list(real_frames()), 2000, seed=mend):
        data = mended(data) if mend else data
        frame = watched(lambda d=data: frames.read(d), 4 * len(data), DecodeError)
        if frame is not None:
            assert frames.write(frame) == data
            assert mend or data in list(real_frames())


@pytest.mark.parametrize("length", [2**20, 2**31 - 1, 2**31, 2**32 - 1])
def test_hostile_section_lengths_allocate_nothing(length):
    for data in real_frames():
        for section in range(data[32]):
            body = bytearray(data)
            struct.pack_into("<I", body, 33 + 6 * section + 2, length)
            hostile = mended(bytes(body))
            assert watched(lambda d=hostile: frames.read(d), 4 * len(data), DecodeError) is None


# Methods: what a server reads, what a client receives.


def build():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


CASES = {
    "fedavg": ("fedavg", {}),
    "fedavg half": ("fedavg", {"uplink": Float16(), "downlink": Float16()}),
    "fedpm": ("fedpm", {}),
}


class Federation:
    """One method after a few honest rounds: real frames of both directions, and both ends' states."""

    def __init__(self, case):
        name, settings = CASES[case]
        self.method = METHODS[name](Setup(build, Local(epochs=1, batch_size=8), seed=3, run=77, **settings), {})
        draw = np.random.default_rng(6)
        data = [Data(c, draw.standard_normal((16, 6)).astype(np.float32), np.arange(16) % 3) for c in range(3)]
        state, held = self.method.init(), None
        self.broadcasts, self.updates = [], []
        for round in range(4):
            message = self.method.broadcast(state, round - 1 if round else None)
            self.broadcasts += [message, self.method.broadcast(state, None), self.method.broadcast(state, 0)]
            before, held = held, self.method.receive(message, held, round - 1 if round else None)
            answers = [self.method.train(held, self.method.client_init(d.client), d)[0] for d in data]
            self.updates += answers
            last, state = (
                state,
                self.method.merge(state, [self.method.read(state, i, a) for i, a in enumerate(answers)]),
            )
        self.state, self.held, self.before = last, held, before  # the state that the last answers are for
        self.size = self.method.read(last, 0, self.updates[-3]).value.size


@pytest.fixture(scope="module", params=CASES)
def federation(request):
    return Federation(request.param)


@pytest.mark.parametrize("mend", [False, True])
def test_mutated_updates(federation, mend):
    method = federation.method
    refused = 0
    for data in mutations(federation.updates, 1200, seed=10 + mend):
        data = mended(data) if mend else data
        update = watched(lambda d=data: method.read(federation.state, 0, d), 4 * federation.size, DecodeError)
        refused += update is None
        if update is not None:
            assert update.value.shape == (federation.size,)
            assert np.isfinite(update.value).all()
            assert 1 <= update.samples <= frames.MAX_SAMPLES
            assert mend or data in federation.updates
    assert refused > 600


def array_of(value):
    return next(v for v in vars(value).values() if isinstance(v, np.ndarray))


@pytest.mark.parametrize("mend", [False, True])
def test_mutated_broadcasts(federation, mend):
    method = federation.method
    ends = [(None, None), (federation.before, 2), (federation.held, 3), (federation.held, 1), (federation.held, None)]
    for index, data in enumerate(mutations(federation.broadcasts, 1200, seed=20 + mend)):
        data, (held, have) = mended(data) if mend else data, ends[index % len(ends)]
        now = watched(
            lambda d=data, h=held, v=have: method.receive(d, h, v), 4 * federation.size, DecodeError, NeedKeyframe
        )
        if now is not None:
            assert array_of(now.value).shape == (federation.size,)
            assert mend or data in federation.broadcasts


def payloads(messages):
    return [payload for message in messages for _, payload in frames.read(message).sections]


def test_updates_whose_payload_alone_is_changed(federation):
    """The frame is right in every field; only what its section holds is not."""
    method = federation.method
    for index, payload in enumerate(mutations(payloads(federation.updates), 800, seed=30)):
        honest = frames.read(federation.updates[-1 - index % 3])
        data = frames.write(Frame(**{**vars(honest), "sections": ((honest.sections[0][0], payload),)}))
        update = watched(lambda d=data: method.read(federation.state, 0, d), 4 * federation.size, DecodeError)
        assert update is None or update.value.shape == (federation.size,)


def test_broadcasts_of_which_one_payload_is_changed(federation):
    method = federation.method
    for index, data in enumerate(mutations(payloads(federation.broadcasts), 800, seed=31)):
        honest = frames.read(federation.broadcasts[index % len(federation.broadcasts)])
        if not honest.sections:
            continue
        at = index // 7 % len(honest.sections)
        sections = tuple((sort, data if i == at else held) for i, (sort, held) in enumerate(honest.sections))
        message = frames.write(Frame(**{**vars(honest), "sections": sections}))
        have = 2 if honest.kind == Kind.STEP else None
        held = federation.before if have else None
        now = watched(
            lambda m=message, h=held, v=have: method.receive(m, h, v), 4 * federation.size, DecodeError, NeedKeyframe
        )
        assert now is None or array_of(now.value).shape == (federation.size,)


@pytest.mark.parametrize("field", ["run", "round", "codec", "layout", "kind", "samples"])
def test_an_honest_update_with_one_other_field(federation, field):
    honest = frames.read(federation.updates[-1])
    other = {"run": 78, "round": 9, "codec": tag(Float16()) ^ 1, "layout": bytes(8), "kind": Kind.MODEL, "samples": 0}
    data = frames.write(Frame(**{**vars(honest), field: other[field]}))
    with pytest.raises(DecodeError):
        federation.method.read(federation.state, 0, data)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [*((kind, odd) for kind in (Kind.KEYFRAME, Kind.STEP) for odd in (np.nan, np.inf)), (Kind.STEP, 3e38)],
)
def test_a_broadcast_that_leaves_weights_not_finite_is_refused(kind, entry):
    federation = Federation("fedavg")
    held = federation.held
    held.value.weights[:] = 3e38
    values = np.full(federation.size, entry, np.float32).tobytes()
    honest = next(f for f in map(frames.read, federation.broadcasts) if f.kind == kind)
    sort = Section.STEP if kind == Kind.STEP else Section.VALUES
    base = {"base": held.version, "round": held.version + 1} if kind == Kind.STEP else {}
    message = frames.write(Frame(**{**vars(honest), **base, "sections": ((sort, values),)}))
    with pytest.raises(DecodeError):
        federation.method.receive(message, held, held.version)
