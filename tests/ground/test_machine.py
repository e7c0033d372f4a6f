"""Cores and start methods on systems that have less than this one."""

import os
import sys

import pytest

from thinwire.errors import ConfigError
from thinwire.machine import VARIABLE, cores, start_method


def test_cores_are_those_that_this_process_may_use():
    if hasattr(os, "sched_getaffinity"):
        assert cores() == len(os.sched_getaffinity(0))
    assert 1 <= cores() <= os.cpu_count()


@pytest.mark.parametrize(("count", "found"), [(5, 5), (None, 1)])
def test_cores_where_no_process_has_an_affinity(monkeypatch, count, found):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == found
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert cores() == 3


@pytest.mark.parametrize(("platform", "method"), [("linux", "fork"), ("darwin", "spawn"), ("win32", "spawn")])
def test_workers_fork_on_linux_alone(monkeypatch, platform, method):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert start_method() == method
    monkeypatch.setenv(VARIABLE, "spawn")
    assert start_method() == "spawn"


def test_a_start_method_that_the_system_lacks(monkeypatch):
    monkeypatch.setattr("thinwire.machine.get_all_start_methods", lambda: ["spawn"])  # as on Windows
    monkeypatch.setenv(VARIABLE, "fork")
    with pytest.raises(ConfigError, match=r"^THINWIRE_START_METHOD = 'fork': one of spawn$"):
        start_method()
