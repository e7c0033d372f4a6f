"""Frames read in the processes of the clients: the updates, refusals and bytes of reading them here."""

import os
import signal
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from toyworld import World, lines, model_bytes, run, two_layers

from thinwire import api
from thinwire.codecs import QSGD, Float32
from thinwire.codecs.entries import Entries
from thinwire.errors import ThinwireError
from thinwire.methods import Update
from thinwire.methods.assemble import assemble
from thinwire.methods.base import Setup
from thinwire.methods.fedavg import FedAvg, Options
from thinwire.runtime import pipes, workers
from thinwire.runtime import run as runs
from thinwire.runtime.experiment import parse
from thinwire.runtime.reading import Here, Reading
from thinwire.runtime.workers import Elsewhere, Workers
from thinwire.train import Local

TOY = {"data": "toyworld:blobs", "model": "toyworld:two_layers", "clients": 6, "rounds": 4, "batch_size": 8}
METHODS = {
    "fedavg + stc": {"method": "fedavg", "uplink": {"id": "stc", "keep": 0.2, "error_feedback": True}},
    "fedavg + thin": {"method": "fedavg", "uplink": {"id": "thin", "nmse": 0.3}, "fraction": 0.5},
    "fedavg + fedzip, median": {"method": "fedavg", "uplink": {"id": "fedzip"}, "server.aggregate": "median"},
    "fedpm": {"method": "fedpm"},
    "fedpm, bound": {"method": "fedpm", "server.max_votes_against": 0.45},
    "ssfl + m22": {"method": "ssfl", "method.density": 0.5, "uplink": {"id": "m22", "keep": 0.5}},
    "ssfl late": {"method": "ssfl", "method.density": 0.5, "method.warm_start": 2, "uplink": {"id": "qsgd"}},
    "ssfl, reselect": {"method": "ssfl", "method.density": 0.5, "method.reselect": [3], "uplink": {"id": "stc"}},
    "majority": {"method": "fedavg", "server.optimizer": "majority", "uplink": {"id": "stc", "keep": 0.2}},
    "feddyn + thin": {"method": "feddyn", "uplink": {"id": "thin", "nmse": 0.3}, "test_fraction": 0.2},
    "quorum": {"method": "fedavg", "uplink": {"id": "qsgd"}, "clients": 9, "fraction": 0.67, "faults.drop": 0.3,
               "cohort.min_replies": 5, "cohort.without_quorum": "repeat", "cohort.tries": 9},
    "scaffold + qsgd": {"method": "scaffold", "uplink": {"id": "qsgd"}},
    "sparsyfed": {"method": "sparsyfed", "uplink": {"id": "fp8"}},
    "dispfl": {"method": "dispfl", "uplink": {"id": "qsgd"}},
    "pfedpara": {"method": "pfedpara", "model": "toyworld:roomy", "uplink": {"id": "fedzip"},
                 "parameterisation.gamma": 0.3},
    "faults": {"method": "fedavg", "uplink": {"id": "fedzip"}, "clients": 12, "faults.mutate": 0.3,
               "faults.replay": 0.2, "faults.sign_flip": 0.2, "faults.wrong_layout": 0.2},
}  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """What came of every frame that went to a process."""
    found, reading = [], Workers.reading
    monkeypatch.setattr(Workers, "reading", lambda pool, job: found.append(reading(pool, job)) or found[-1])
    return found


@pytest.mark.parametrize("name", METHODS)
def test_readings_elsewhere_leave_the_same_run(name, tmp_path, counted):
    made = parse(api.settings(**{**TOY, **METHODS[name]}))
    runs.start(made, tmp_path / "here", workers=1)
    assert not counted
    runs.start(made, tmp_path / "there", workers=2)
    assert lines(tmp_path / "here") == lines(tmp_path / "there")
    assert model_bytes(tmp_path / "here") == model_bytes(tmp_path / "there")
    read = [reading for reading in counted if reading is not None]
    assert bool(read) == (name != "dispfl")  # whose masks the server alone has
    refused = [reading.refused for reading in read if reading.refused]
    assert bool(refused) == (name == "faults")


def test_entries_stay_entries_on_the_way(tmp_path, counted):
    runs.start(parse(api.settings(**{**TOY, **METHODS["fedavg + stc"]})), tmp_path / "run", workers=2)
    changes = [reading.update.change for reading in counted if reading]
    assert changes
    assert all(isinstance(change, Entries) for change in changes)


def test_float32_is_read_by_the_run(tmp_path, monkeypatch):
    asked, submit = [], Workers.submit_reading
    monkeypatch.setattr(Workers, "submit_reading", lambda pool, *job: asked.append(job) or submit(pool, *job))
    run(tmp_path / "dense", "fedavg", workers=2)
    assert not asked
    roomy = {"model": {"build": "toyworld:roomy"}, "uplink": {"id": "stc", "keep": 0.02}}
    run(tmp_path / "coded", "fedavg", workers=2, **roomy)
    assert len(asked) == 12  # four clients, three rounds


def test_what_a_process_cannot_read_the_run_reads_itself(tmp_path, counted, monkeypatch):
    class Killed(Exception):
        """Of the run, after two rounds."""

    def killed(entry, rounds):
        if entry.round == 2:
            raise Killed

    made = parse(api.settings(**{**TOY, **METHODS["fedavg + thin"]}))
    runs.start(made, tmp_path / "whole", workers=1)
    with pytest.raises(Killed):
        runs.start(made, tmp_path / "cut", workers=2, on_round=killed)
    counted.clear()
    runs.resume(tmp_path / "cut", workers=2)
    assert [reading is None for reading in counted] == [True] * 3 + [False] * 3  # begun with a keyframe, no change
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert model_bytes(tmp_path / "whole") == model_bytes(tmp_path / "cut")


@pytest.mark.parametrize(("arrays", "waiting"), [(100, 5), (3, 3), (0, 2)])
def test_few_answers_wait_for_their_frames_to_be_read(arrays, waiting, monkeypatch):
    world = World("fedpm", data={"load": "toyworld:blobs", "clients": 30})
    monkeypatch.setattr(workers, "AHEAD_BYTES", arrays * 4 * world.method.parameters)
    with closing(Workers.forked(world.side, 2)) as pool:
        world.simulation.pool, ahead, most = pool, [0], [0]

        def counting(answers):
            for answer in answers:
                ahead[0] += 1
                most[0] = max(most[0], ahead[0])
                yield answer

        def reader(state, answers):
            for pair in Elsewhere(world.method, pool)(state, counting(answers)):
                ahead[0] -= 1
                yield pair

        world.simulation.reader = reader
        assert world.play().clients == 30
        assert most[0] == waiting


def test_a_process_that_dies_over_a_frame_ends_the_run_with_one_line():
    world = World("fedpm", data={"load": "toyworld:blobs", "clients": 4})
    world.side.method = replace(world.method, read=lambda state, client, frame: os.kill(os.getpid(), signal.SIGKILL))
    with closing(Workers.forked(world.side, 2)) as pool:
        world.simulation.pool, world.simulation.reader = pool, Elsewhere(world.method, pool)
        with pytest.raises(ThinwireError, match="a worker process ended"):
            world.play()


def played(world, read=None, **changes):
    """The readings of a round whose processes have their own `read`."""
    world.side.method = replace(world.method, **({"read": read} if read else {}), **changes)
    found = []
    with closing(Workers.forked(world.side, 2)) as pool:
        reading = pool.reading
        pool.reading = lambda job: found.append(reading(job)) or found[-1]
        world.simulation.pool, world.simulation.reader = pool, Elsewhere(world.method, pool)
        assert world.play().dropped == []
    return found


def test_a_defect_in_a_process_is_met_by_the_run():
    def broken(state, client, frame):
        raise OSError("of the codec")

    found = played(World("fedpm"), broken)
    assert set(found) == {None}
    with pytest.raises(OSError, match="of the codec"):
        played(replace_read(World("fedpm"), broken), broken)


def replace_read(world, read):
    """The world with another `read` on the server."""
    world.method = world.simulation.method = replace(world.method, read=read)
    return world


def test_an_update_of_a_kind_of_its_own_is_read_by_the_run():
    class Own(Update):
        """With more in it than a pipe takes."""

    world = World("fedpm")
    read = world.method.read
    assert set(played(world, lambda *frame: Own(**vars(read(*frame))))) == {None}


def test_where_nothing_can_be_read_elsewhere_nothing_waits_or_goes_there():
    world = World("fedpm", data={"load": "toyworld:blobs", "clients": 30})
    assert played(world, mirror=lambda held: None) == [None] * 5  # those that were on their way when the first came


def test_a_subclass_with_a_read_of_its_own_has_no_mirror_until_it_says_so():
    class Reads(FedAvg):
        def read(self, state, client, message):
            return super().read(state, client, message)

    class Mirrors(Reads):
        def mirror(self, held):
            return super().mirror(held)

    setup = Setup(build=two_layers, local=Local(batch_size=8))
    made = [assemble("own", kind(setup, Options(), QSGD(), Float32())) for kind in (FedAvg, Reads, Mirrors)]
    assert [method.mirror is None for method in made] == [False, True, False]


def test_one_process_reads_here():
    world = World()
    assert workers.open_reader(world.method, world.pool) is None
    answers = list(Here(world.method)(world.progress.server, iter(())))
    assert answers == []


@pytest.mark.parametrize(
    "reading",
    [
        None,
        Reading(None, {}, 0.5, "frame: cut"),
        Reading(Update(3, np.arange(4, dtype=np.float32)), {"values": 16}, 0.25),
        Reading(Update(3, np.array([0, 1], np.uint8), marginal_bits=2.0), {}, 0.0),
        Reading(Update(1, Entries(9, np.array([2, 8]), np.array([1, -1], np.float32))), {"values": 3}, 0.0),
        Reading(Update(1, Entries(9, np.zeros(0, np.int64), np.zeros(0, np.float32))), {}, 0.0),
    ],
)
def test_a_reading_comes_through_the_pipe_as_it_is(reading):
    back = pipes.unpack_reading(pipes.pack_reading(reading))
    if reading is None or reading.update is None:
        assert back == reading
        return
    assert (back.parts, back.seconds, back.refused) == (reading.parts, reading.seconds, "")
    assert (back.update.samples, back.update.marginal_bits) == (reading.update.samples, reading.update.marginal_bits)
    assert type(back.update.change) is type(reading.update.change)
    assert back.update.value.dtype == reading.update.value.dtype
    np.testing.assert_array_equal(back.update.value, reading.update.value)
