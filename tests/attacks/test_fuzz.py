"""The fuzz target itself: it finds what escapes, keeps what reaches new lines, and every target takes its own bytes."""

import time
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.fuzz.campaign import play
from benchmarks.fuzz.mutators import mutant
from benchmarks.fuzz.targets import REFUSALS, Target, mended_mutant, real_frames, targets

from thinwire import frame
from thinwire.errors import DecodeError


def target(read, holds=lambda data, made: True):
    return Target("of this test", (b"0123456789abcdef", bytes(40)), read, holds, 0)


def refuses(data):
    raise DecodeError(f"never {len(data)} bytes")


def test_refusals_are_counted_by_reason():
    found = play(target(refuses), 300, 0)
    assert (found.mutations, found.accepted, found.escapes) == (300, 0, [])
    assert dict(found.refusals) == {"never # bytes": 300}


def busy(data):
    """More than a second of work for one kind of bytes."""
    until = time.process_time() + 1.05
    while len(data) == 40 and any(data) and time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda data: data[15], "IndexError"),
        (lambda data: np.ones(65 * 2**20, np.uint8), "bytes"),
        (busy, "seconds"),
    ],
)
def test_what_escapes_is_found(read, what):
    found = play(target(read), 16, 1)
    assert found.escapes
    assert all(what in why for why, _ in found.escapes)


def test_what_is_accepted_and_wrong_is_found():
    found = play(target(lambda data: data, lambda data, made: len(made) < 10), 50, 2)
    assert found.accepted == 50
    assert {why for why, _ in found.escapes} == {"accepted, and is not what it must be"}


def test_a_mutant_that_reaches_new_lines_is_mutated_again():
    one = replace(target(frame.read), samples=tuple(real_frames()), mutate=mended_mutant)
    found, again = play(one, 400, 3), play(one, 400, 3)
    assert found.kept > 3
    assert found.lines > 30
    assert (again.kept, again.lines, again.refusals) == (found.kept, found.lines, found.refusals)


def test_mutants_are_of_the_samples_and_of_the_seed():
    made = [[mutant(list(real_frames()), i, np.random.default_rng(s)) for i in range(40)] for s in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.slow
def test_every_target_takes_its_own_bytes():
    for one in targets():
        taken = 0
        for sample in one.samples:
            try:
                assert one.holds(sample, one.read(sample))
                taken += 1
            except REFUSALS:  # a step is for those who hold what it builds on
                continue
        assert taken, one.name
