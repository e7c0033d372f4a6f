"""Ctrl-C: once, the round under way is ended and committed; twice, at once. Either way the run goes on from there."""

import signal
import threading
import time

import pytest
from test_run_determinism import FEEDBACK, same
from toyworld import lines, run

from thinwire import compare as suites
from thinwire.runtime import checkpoint
from thinwire.runtime.interruption import heeded
from thinwire.runtime.run import resume

SETTINGS = {**FEEDBACK, "rounds": 6, "checkpoint": {"every": 4}}


def press():
    signal.raise_signal(signal.SIGINT)


def press_after(round, times=1):
    def on_round(entry, of):
        for _ in range(times if entry.round == round else 0):
            press()

    return on_round


def committed(out):
    return sorted(path.name for path in (out / "checkpoint").glob("manifest*"))


def test_the_round_under_way_is_ended_and_committed(tmp_path, capfd):
    run(tmp_path / "whole", "fedavg", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", "fedavg", on_round=press_after(2), **SETTINGS)
    assert len(lines(tmp_path / "parts")) == 3
    assert committed(tmp_path / "parts") == ["manifest-3.json"]  # not one of every four
    assert "ending after the round under way; Ctrl-C again stops at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    played = []
    resume(tmp_path / "parts", workers=1, on_round=lambda entry, of: played.append(entry.round))
    assert played == [4, 5, 6]
    same(tmp_path / "whole", tmp_path / "parts")


def test_the_second_stops_at_once(tmp_path):
    run(tmp_path / "whole", "fedavg", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", "fedavg", on_round=press_after(2, times=2), **SETTINGS)
    assert len(lines(tmp_path / "parts")) == 2
    assert not checkpoint.saved(tmp_path / "parts" / "checkpoint")
    resume(tmp_path / "parts", workers=1)
    same(tmp_path / "whole", tmp_path / "parts")


def test_in_the_last_round_the_run_stops_before_its_summary_and_is_finished_by_resuming(tmp_path):
    def press_in_the_last(entry, of):
        if entry.round == of:
            press()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", "fedavg", on_round=press_in_the_last, **SETTINGS)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert len(resume(tmp_path / "run", workers=1).rounds) == 6


def test_a_comparison_stops_with_its_run_and_goes_on(tmp_path):
    entries = {name: {"method": {"name": name}} for name in ("fedavg", "fedpm")}
    shared = {"rounds": 3, "device": "cpu", "data": {"name": "digits", "clients": 3}, "model": {"name": "linear"}}
    suite, said = {**shared, "entries": entries}, []

    def on_round(name, entry, of):
        said.append((name, entry.round))
        if said == [("fedavg", 1)]:
            press()

    with pytest.raises(KeyboardInterrupt):
        suites.compare(suite, tmp_path, workers=1, on_round=on_round)
    assert said == [("fedavg", 1), ("fedavg", 2)]
    suites.compare(suite, tmp_path, workers=1, on_round=on_round)
    assert said[2:] == [("fedavg", 3), ("fedpm", 1), ("fedpm", 2), ("fedpm", 3)]


def test_who_handles_it_otherwise_goes_on_to():
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        with heeded() as interruption:
            press()
        assert (pressed, interruption.asked) == ([1], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes():
    seen = []

    def work():
        with heeded() as interruption:
            time.sleep(0.01)
            seen.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
