"""Randomness is an argument: every draw comes from (seed, round, client, purpose).

Two kinds. `generator` is numpy's Philox generator, for draws that one side makes alone (batch order, mask samples).
`raw_words` are bare Philox-4x64-10 counter outputs, fixed by FORMAT.md: for what must be equal on all machines.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

SERVER = -1  # stands where a client's number would, for draws that no client makes


def key(seed: int, round: int = 0, client: int = SERVER, purpose: str = "") -> np.ndarray:
    """128-bit Philox key (2 × uint64, little-endian): first 16 bytes of SHA-256 over 'seed/round/client/purpose'."""
    return np.frombuffer(_digest(seed, round, client, purpose)[:16], dtype="<u8").astype(np.uint64)


def _digest(seed: int, round: int, client: int, purpose: str) -> bytes:
    return sha256(f"{seed}/{round}/{client}/{purpose}".encode()).digest()


class _Key(ISeedSequence):
    """A Philox key that is taken as it is. Given as `key=`, numpy draws entropy for a seed that it then ignores."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The key's two words, the only state that Philox asks for."""
        assert (n_words, dtype) == (2, np.uint64)
        return self.words


def _philox(key: np.ndarray) -> np.random.Philox:
    return np.random.Philox(_Key(key))  # type: ignore[arg-type]  # numpy takes any ISeedSequence, its stubs do not


def generator(seed: int, round: int = 0, client: int = SERVER, purpose: str = "") -> np.random.Generator:
    """Independent numpy generator for one purpose of one client in one round."""
    return np.random.Generator(_philox(key(seed, round, client, purpose)))


def integer(seed: int, round: int = 0, client: int = SERVER, purpose: str = "") -> int:
    """Seed of 63 bits for libraries that want one whole number (torch)."""
    return int.from_bytes(_digest(seed, round, client, purpose)[:8], "little") >> 1


def raw_words(seed: int, purpose: str, count: int) -> np.ndarray:
    """`count` raw 64-bit outputs of Philox-4x64-10, counter from 1, four a block, alike everywhere.  # (count,)"""
    return _philox(key(seed, purpose=purpose)).random_raw(count)


def raw_bits(seed: int, purpose: str, count: int) -> np.ndarray:
    """`count` fair bits: the raw words as little-endian bytes, lowest bit of each byte first.  # (count,) uint8."""
    words = raw_words(seed, purpose, (count + 63) // 64)
    return np.unpackbits(words.astype("<u8").view(np.uint8), count=count, bitorder="little")
