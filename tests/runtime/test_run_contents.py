"""What crosses, by sort: sorts of both directions and parts of the updates add up to the bytes of the ledger."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_run_determinism import Stop, stop_after
from test_run_round import SIX, flip, forget, mutating
from toyworld import Spy, World, lines, run

from thinwire import frame as frames
from thinwire.codecs import CODECS, Context, parts
from thinwire.errors import DecodeError
from thinwire.frame import Frame, Kind, Section
from thinwire.layout import Layout
from thinwire.methods import METHODS, PRESETS
from thinwire.runtime.client import Answer
from thinwire.runtime.contents import PARTS, sort_of
from thinwire.runtime.ledger import Ledger
from thinwire.runtime.run import resume

PARTIAL = {"data": {"clients": 6}, "cohort": {"fraction": 0.5}}
NUMBERS = {"values", "rest", "weights", "cells"}  # names of pieces that are entries as numbers
LAYOUT = Layout.of({"fc.weight": (40, 30), "fc.bias": (40,)})


def check(entry):
    """The sums that hold in every line of a ledger; `entry` is its fields."""
    up, down = entry["up_by_sort"], entry["down_by_sort"]
    assert sum(up.values()) == entry["up_bytes"]
    assert sum(down.values()) == entry["down_bytes"]
    assert sum(entry["up_parts"].values()) == up.get("update", 0) + up.get("setup", 0)
    assert set(down) <= {"step", "keyframe"}


# sums ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedpm", "fedavg", "ssfl", "stc", "scaffold", "dispfl", "sparsyfed", "pfedpara"])
def test_sorts_and_parts_of_a_run_add_up(tmp_path, name):
    run(tmp_path / "run", name, rounds=5, **PARTIAL)
    for entry in lines(tmp_path / "run"):
        check(entry)


@pytest.mark.parametrize("name", sorted([*METHODS, *PRESETS]))
def test_what_no_codec_names_is_the_frames_own(name):
    """Every byte of a payload has a name, and no payload is read twice, whatever the method."""
    world = World(name, Spy, data=SIX, cohort={"fraction": 0.5})
    for _ in range(3):
        entry = world.play()
        accepted = [frames.read(answer.frame) for answer in world.pool.answered[-entry.clients :]]
        overhead = sum(frames.OVERHEAD_BYTES + frames.SECTION_OVERHEAD_BYTES * len(f.sections) for f in accepted)
        assert entry.up_parts["frame"] == overhead
        check(vars(entry))


def test_a_set_up_round_is_told_apart(tmp_path):
    run(tmp_path / "run", "ssfl", rounds=3, **PARTIAL)
    assert [list(entry["up_by_sort"]) for entry in lines(tmp_path / "run")] == [["setup"], ["update"], ["update"]]


def test_requests_and_what_is_refused_are_told_apart():
    world = World("fedpm", mutating(2))
    world.play()
    forget(world, 1)
    entry = world.play()
    check(vars(entry))
    assert entry.up_by_sort["request"] == frames.OVERHEAD_BYTES
    refused = [answer for answer in world.pool.answered if answer.client == 2][-1]
    assert entry.up_by_sort["refused"] == len(refused.frame)
    assert entry.clients == 3


@pytest.mark.parametrize("broken", [False, True])
def test_requests_that_are_refused_count_too(broken):
    """One that is broken, and one that comes after a keyframe was sent."""
    request = frames.write(Frame(Kind.REQUEST, 0, 0, 0, bytes(8)))
    answer = Answer(1, "keyframe", flip(request, 5) if broken else request)
    world = World("fedpm", lambda pool: Spy(pool, lambda a: replace(answer, record=a.record) if a.client == 1 else a))
    entry = world.play()
    check(vars(entry))
    assert entry.up_by_sort["refused"] == len(request)
    assert entry.up_by_sort.get("request", 0) == (0 if broken else len(request))
    assert entry.total_bytes == sum(world.pool.up) + sum(world.pool.down)


def test_steps_and_keyframes_are_told_apart():
    world = World("fedpm", Spy, data=SIX, cohort={"size": 2})
    for _ in range(6):
        entry = world.play()
        kinds = dict.fromkeys(("step", "keyframe"), 0)
        for message in world.pool.messages.values():
            kinds[frames.read(message).kind.name.lower()] += 4 + len(message)
        assert entry.down_by_sort == {kind: size for kind, size in kinds.items() if size}


# names ---------------------------------------------------------------------------------------------------------------


def array(dtype):
    draw = np.random.default_rng(0)
    makers = {
        "float32": lambda: draw.normal(size=LAYOUT.size).astype(np.float32),
        "uint8": lambda: (draw.random(LAYOUT.size) < 0.1).astype(np.uint8),
        "uint32": lambda: draw.integers(0, 9, LAYOUT.size, dtype=np.uint32),
    }
    return makers[dtype]()


@pytest.mark.parametrize("name", CODECS)
def test_every_name_of_a_piece_is_known(name):
    codec, context = CODECS[name](), Context(LAYOUT)
    payload = codec.encode(array(codec.dtype), context)
    leaves = [part.path[-1] for part in parts(codec, payload, context) if part.leaf]
    assert set(leaves) <= set(PARTS) | NUMBERS | {entry.name for entry in LAYOUT}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fedpm", {"frame", "headers", "tables", "mask"}),
        ("stc", {"frame", "headers", "tables", "positions", "labels"}),
        ("fedzip", {"frame", "headers", "tables", "positions", "labels", "values"}),
        ("sparsyfed", {"frame", "headers", "tables", "mask", "values"}),
        ("fedavg", {"frame", "values"}),
    ],
)
def test_parts_have_the_names_that_people_look_for(name, expected):
    entry = World(name, data={"clients": 3}, model={"build": "toyworld:roomy"}).play()
    assert set(entry.up_parts) == expected


def test_a_sort_is_of_a_whole_frame():
    frame = Frame(Kind.UPDATE, 1, 0, 0, bytes(8), ((Section.SALIENCY, b"x"),), samples=3)
    assert sort_of(frames.write(frame)) == "setup"
    assert sort_of(frames.write(replace(frame, sections=((Section.VALUES, b"x"),)))) == "update"
    with pytest.raises(DecodeError, match="frame: "):
        sort_of(b"nonsense")


# the ledger ----------------------------------------------------------------------------------------------------------


def test_workers_and_resumption_change_nothing(tmp_path):
    for workers in (1, 2):
        run(tmp_path / str(workers), "ssfl", rounds=4, workers=workers, **PARTIAL)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "ssfl", rounds=4, on_round=stop_after(2), **PARTIAL)
    resume(tmp_path / "parts", workers=2)
    assert lines(tmp_path / "1") == lines(tmp_path / "2") == lines(tmp_path / "parts")
    assert lines(tmp_path / "1")[0]["up_parts"]["labels"] > 0


def test_a_ledger_of_before_the_sorts_goes_on(tmp_path):
    run(tmp_path / "run", rounds=2)
    path = tmp_path / "run" / "rounds.jsonl"
    new = ("up_by_sort", "down_by_sort", "up_parts")
    old = [{key: row[key] for key in row if key not in new} for row in lines(tmp_path / "run")]
    path.write_text("".join(json.dumps({**row, "seconds": {}}) + "\n" for row in old))
    for entry in Ledger.reopen(path, tmp_path / "copy.jsonl", {"bytes": path.stat().st_size}).rounds:
        assert (entry.up_by_sort, entry.down_by_sort, entry.up_parts) == (None, None, None)
