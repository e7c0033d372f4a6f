"""Randomness: fixed bits, checked against Philox-4x64-10 written out, and streams that do not meet."""

import numpy as np
import pytest

from thinwire import rng

WORD = 2**64 - 1


def philox(counter, key):
    """Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011: ten rounds on 4 × 64 bits."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(right >> 64) ^ c[1] ^ k[0], right & WORD, (left >> 64) ^ c[3] ^ k[1], left & WORD]
        k = [k[0] + 0x9E3779B97F4A7C15 & WORD, k[1] + 0xBB67AE8584CAA73B & WORD]
    return c


def test_philox_known_answer():
    """The authors' own test vector for philox4x64-10, all zeros."""
    assert philox([0] * 4, [0] * 2)[0] == 0x16554D9ECA36314C


def test_key_is_the_start_of_a_sha256():
    """sha256("3/2/1/batches")."""
    assert rng.key(3, 2, 1, "batches").tobytes().hex() == "afc5a7447fe534211b5bceea881193b6"
    assert rng.key(0).dtype == np.uint64


def test_raw_words_are_philox_from_counter_one():
    key = [int(word) for word in rng.key(5, purpose="frozen-signs")]
    expected = [word for block in range(1, 4) for word in philox([block, 0, 0, 0], key)]
    assert rng.raw_words(5, "frozen-signs", 10).tolist() == expected[:10]


def test_raw_words_are_these():
    assert [hex(word) for word in rng.raw_words(0, "frozen-signs", 2)] == ["0x9048fd87025539a7", "0x4f5d97185c4622a5"]


def test_raw_bits_are_the_words_lowest_bit_first():
    words = rng.raw_words(1, "frozen-signs", 3)
    expected = [int(word) >> bit & 1 for word in words for bit in range(64)]
    for count in (0, 1, 63, 64, 65, 192):
        bits = rng.raw_bits(1, "frozen-signs", count)
        assert bits.dtype == np.uint8
        assert bits.tolist() == expected[:count]


def test_raw_bits_are_fair():
    bits = rng.raw_bits(0, "frozen-signs", 1_000_000)
    assert abs(bits.mean() - 0.5) < 4 * 0.5 / 1000


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"round": 1}, {"client": 0}, {"client": 1}, {"purpose": "b"}, {"purpose": ""}]
)
def test_streams_do_not_meet(other):
    at = {"seed": 0, "round": 0, "client": rng.SERVER, "purpose": "a"}
    first, second = rng.generator(**at), rng.generator(**{**at, **other})
    assert not np.intersect1d(first.integers(0, 2**63, 100), second.integers(0, 2**63, 100)).size
    assert rng.integer(**at) != rng.integer(**{**at, **other})
    x, y = (rng.generator(**which).standard_normal(20_000) for which in (at, {**at, **other}))
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(20_000)


def test_the_parts_of_a_key_do_not_run_together():
    assert rng.integer(1, 11) != rng.integer(11, 1)
    assert rng.integer(1, 1, 1, "1") != rng.integer(1, 1, 11, "")


def test_same_arguments_same_draws():
    assert rng.generator(1, 2, 3, "x").random() == rng.generator(1, 2, 3, "x").random()


def test_integer_has_63_bits():
    assert all(0 <= rng.integer(seed) < 2**63 for seed in range(200))
    assert max(rng.integer(seed) for seed in range(200)) > 2**62
