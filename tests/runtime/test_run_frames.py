"""The recorder: which frames are kept, when, and that keeping them changes nothing."""

import pytest
import toyworld
from toyworld import World, experiment, lines, model_bytes

from thinwire.errors import DecodeError
from thinwire.frame import Frame, Kind, write
from thinwire.methods import METHODS
from thinwire.runtime.client import Answer
from thinwire.runtime.inspection import inspect
from thinwire.runtime.recorder import FRAMES, Recorder, read_state
from thinwire.runtime.run import resume, start


def kept(out):
    return sorted(path.name for path in (out / FRAMES).iterdir())


def record(out, name="fedpm", on_round=None, **settings):
    return start(experiment(name, **settings), out, workers=1, save_frames=True, on_round=on_round)


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_a_run_is_the_same_with_and_without(name, tmp_path):
    record(tmp_path / "a", name)
    toyworld.run(tmp_path / "b", name)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")


def test_each_round_replaces_the_frames_of_the_one_before(tmp_path):
    seen = []
    record(tmp_path / "a", on_round=lambda entry, rounds: seen.append(kept(tmp_path / "a")))
    assert [{name.split("-")[1] for name in names if name.startswith("round")} for names in seen] == [
        {"1"}, {"2"}, {"3"},
    ]  # fmt: skip
    assert [[name for name in names if name.startswith("server")] for names in seen] == [
        ["server-0.safetensors"],
        ["server-0.safetensors", "server-1.safetensors"],
        ["server-1.safetensors", "server-2.safetensors"],
    ]


def test_only_committed_rounds_are_kept(tmp_path):
    seen = []
    record(
        tmp_path / "a", rounds=5, checkpoint={"every": 2},
        on_round=lambda entry, rounds: seen.append(max(map(_round, kept(tmp_path / "a")), default=0)),
    )  # fmt: skip
    assert seen == [0, 2, 2, 4, 5]


def _round(name):
    return int(name.split("-")[1]) if name.startswith("round") else 0


def test_a_file_of_ones_own_stays(tmp_path):
    def leave(entry, rounds):
        (tmp_path / "a" / FRAMES / "notes.txt").write_text("!")

    record(tmp_path / "a", on_round=leave)
    assert "notes.txt" in kept(tmp_path / "a")


def test_a_resumed_run_goes_on_keeping_them(tmp_path):
    class Stop(Exception):
        pass

    def stop(entry, rounds):
        if entry.round == 1:
            raise Stop

    with pytest.raises(Stop):
        record(tmp_path / "a", on_round=stop)
    resume(tmp_path / "a", workers=1)
    record(tmp_path / "b")
    assert kept(tmp_path / "a") == kept(tmp_path / "b")
    for name in kept(tmp_path / "a"):
        assert (tmp_path / "a" / FRAMES / name).read_bytes() == (tmp_path / "b" / FRAMES / name).read_bytes()


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_clients_of_several_versions(name, tmp_path):
    """With half of the clients a round, frames build on several versions; each is kept and adds up."""
    record(tmp_path / "a", name, rounds=6, cohort={"fraction": 0.5}, seed=1)
    for path in (tmp_path / "a" / FRAMES).glob("*.tw"):
        assert int(inspect(path).rows[-1][1].replace(",", "")) == path.stat().st_size


class Answering:
    """A pool of one client that asks for a keyframe, one that answers and one that fails."""

    def begin(self, sync, broadcasts):
        self.broadcasts = broadcasts

    def answers(self, tasks, enough=None):
        yield Answer(0, "keyframe", b"request")
        yield Answer(1, "done", b"update")
        yield Answer(2, "failed", reason="no memory")


def test_what_crossed_by_name(tmp_path):
    world = World()
    world.play()
    server = world.progress.server
    recorder = Recorder(Answering(), tmp_path)
    recorder.begin(b"", [world.method.broadcast(server, 0), world.method.broadcast(server, None)])
    assert [answer.client for answer in recorder.answers([])] == [0, 1, 2]
    assert recorder.pool.broadcasts
    recorder.played(1, server, keep=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "round-2-client-0-request.tw", "round-2-client-1-up.tw", "round-2-down-from-0.tw",
        "round-2-down-from-keyframe.tw", "server-1.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "round-2-client-0-request.tw").read_bytes() == b"request"


def test_a_request_has_nothing_inside(tmp_path):
    world = World()
    toyworld.run(tmp_path / "a")
    request = Frame(Kind.REQUEST, world.assembly.run_id, 0, 0, bytes(8))
    (tmp_path / "request.tw").write_bytes(write(request))
    assert [row[1] for row in inspect(tmp_path / "request.tw", tmp_path / "a").rows] == ["37", "37"]


def test_states_are_read_by_version(tmp_path):
    record(tmp_path / "a")
    folder, method = tmp_path / "a" / FRAMES, World().method
    assert method.version(read_state(folder, method, 2)) == 2
    assert read_state(folder, method, 0) is None
    (folder / "server-2.safetensors").rename(folder / "server-7.safetensors")
    with pytest.raises(DecodeError, match=r"server-7\.safetensors: a state of version 2"):
        read_state(folder, method, 7)


@pytest.mark.parametrize("name", list(METHODS))
def test_the_last_round_of_every_method_opens(name, tmp_path):
    record(tmp_path / "a", name)
    for path in (tmp_path / "a" / FRAMES).glob("*.tw"):
        assert all("not opened" not in row[-1] for row in inspect(path).rows)


@pytest.mark.parametrize("name", ["sparsyfed", "dispfl"])
def test_buffers_beside_a_mask_and_its_weights_are_no_payload_to_open(name, tmp_path):
    record(tmp_path / "a", name, model={"build": "toyworld:batch_norm"})
    found = [inspect(path).rows for path in (tmp_path / "a" / FRAMES).glob("round-3-client*.tw")]
    assert found
    assert all(row[-1] == "" for rows in found for row in rows if row[0] == "buffers")


def test_steps_that_carry_buffers_open(tmp_path):
    record(tmp_path / "a", "fedavg", model={"build": "toyworld:batch_norm"}, downlink={"id": "stc"})
    found = [inspect(path, tmp_path / "a") for path in (tmp_path / "a" / FRAMES).glob("round-3-down*.tw")]
    assert found
    assert all("buffers" in text for text in map(str, found))
