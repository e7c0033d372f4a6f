"""The thread that carries a worker's messages: whatever becomes of the pipe, the run hears of it and never waits."""

import os
import signal
from multiprocessing import Pipe, active_children, get_all_start_methods, get_context
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from thinwire.errors import ThinwireError
from thinwire.runtime import hiring, pipes
from thinwire.runtime.courier import Courier, Job

SOON = 60  # seconds, after which something has gone wrong


@pytest.fixture
def ends():
    """A courier, the end of the pipe that its worker has, and where the replies come."""
    ours, theirs = Pipe()
    replies = SimpleQueue()
    courier = Courier(SimpleNamespace(name="a worker"), ours, replies)
    yield courier, theirs, replies
    theirs.close()
    courier.end()
    assert not courier.thread.is_alive()
    assert ours.closed


def job(message=b"work", number=7):
    return Job(number, "to work", lambda: message)


def test_a_job_goes_out_and_its_answer_comes_back(ends):
    courier, theirs, replies = ends
    for message in (b"one", b"two"):
        courier.give(job(message))
        assert theirs.recv_bytes() == message
        theirs.send_bytes(message * 2)
        reply = replies.get(timeout=SOON)
        assert (reply.courier, reply.answer) == (courier, message * 2)
        assert 0 <= reply.seconds <= courier.seconds


def test_a_message_that_nobody_reads_holds_only_the_thread(ends):
    courier, theirs, replies = ends
    courier.give(job(bytes(2**24)))  # more than any pipe holds
    assert replies.empty()
    theirs.close()
    assert isinstance(replies.get(timeout=SOON).answer, OSError)


@pytest.mark.skipif(os.name == "nt", reason="writes to the pipe without its own framing")
def test_half_an_answer_holds_only_the_thread(ends):
    courier, theirs, replies = ends
    courier.give(job())
    theirs.recv_bytes()
    os.write(theirs.fileno(), (100).to_bytes(4, "big") + b"half")  # of a hundred bytes
    assert replies.empty()
    theirs.close()
    assert isinstance(replies.get(timeout=SOON).answer, OSError)


def test_an_error_of_another_kind_reaches_the_run(ends):
    courier, _, replies = ends
    courier.pipe.send_bytes, before = None, courier.pipe.send_bytes
    courier.give(job())
    assert isinstance(pipes.ended(replies.get(timeout=SOON).answer), TypeError)
    courier.pipe.send_bytes = before


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError(), ConnectionResetError()])
def test_a_pipe_without_another_end_is_a_worker_that_ended(error):
    found = pipes.ended(error)
    assert isinstance(found, ThinwireError)
    assert str(found) == pipes.WORKER_ENDED


# the end of processes ------------------------------------------------------------------------------------------------


def deaf(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    while True:
        signal.pause()


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="forks the processes that it ends")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_that_heeds_no_sigterm_is_killed(monkeypatch, stopped):
    monkeypatch.setattr(hiring, "GRACE_SECONDS", 0.2)
    context = get_context("fork")
    ready = context.Event()
    process = context.Process(target=deaf, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(SOON)
    if stopped:
        os.kill(process.pid, signal.SIGSTOP)
    hiring.end([process])
    process.join(SOON)
    assert process.exitcode == -signal.SIGKILL
    assert not active_children()


def test_an_interruption_while_they_end_kills_them_at_once():
    calls = []

    def join(seconds):
        calls.append("join")
        raise KeyboardInterrupt

    process = SimpleNamespace(terminate=lambda: calls.append("terminate"), join=join, kill=lambda: calls.append("kill"))
    with pytest.raises(KeyboardInterrupt):
        hiring.end([process])
    assert calls == ["terminate", "join", "kill"]


def test_a_worker_that_takes_long_to_build_its_clients_is_named(monkeypatch):
    said, (ours, theirs), (sentinel, other) = [], Pipe(), Pipe()
    monkeypatch.setattr(hiring, "LONG_SECONDS", 0.0)

    def then_ready(text, file):
        said.append(text)
        theirs.send_bytes(pipes.pack({"failed": ""}))

    monkeypatch.setattr(hiring, "print", then_ready, raising=False)
    hiring._await(SimpleNamespace(sentinel=sentinel, pid=12), ours)
    assert said == ["worker process 12 has taken 0 s to build its clients and is not done"]
    for pipe in (ours, theirs, sentinel, other):
        pipe.close()
