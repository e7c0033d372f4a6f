"""One range-coded stream of numbers and planes, written or read by the same calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.codecs import rangecoder
from thinwire.codecs.thin.model import UNLIMITED, Model, choose, code_bit, code_gamma, code_plane
from thinwire.codecs.thin.tables import HALF
from thinwire.errors import DecodeError

NOWHERE = 1 << 40  # a distance to which no neighbour lies


@dataclass(frozen=True)
class Plane:
    """How a matrix of levels lies, and what is known of each entry: arrays (rows · cols,) uint8.

    classes, lines: 0 … 15 by the size of the shared entry and of its row and column; signs: 0, 1, 2 for −, 0, +.
    kernel_row, kernel: how far back the entries above in a kernel, and in the kernel before, lie.
    """

    cols: int
    classes: np.ndarray
    lines: np.ndarray
    signs: np.ndarray
    kernel_row: int = NOWHERE
    kernel: int = NOWHERE

    @property
    def size(self) -> int:
        """Entries."""
        return self.classes.size


def chosen(x: np.ndarray, plane: Plane, step: float, price: float, sets: int, model: Model) -> tuple[np.ndarray, float]:
    """Rate-distortion optimised levels (n,) int32 of x (n,) and the bits they take; the model learns them."""
    levels, columns = np.empty(plane.size, np.int32), np.zeros(plane.cols, np.int32)
    model.next_plane()
    bits = choose(
        x, step, plane.cols, plane.kernel_row, plane.kernel, plane.classes, plane.lines, plane.signs, price, sets,
        levels, columns, model.probabilities, model.counts, model.weights,
    )  # fmt: skip
    return levels, bits


class Stream:
    """A writer, or a reader of a payload: its calls ignore the values that they are given and return what was sent.

    work: the bits that the levels of a payload may take, one by one; DecodeError as soon as there are more.
    """

    def __init__(self, payload: bytes | None = None, work: int = UNLIMITED) -> None:
        self.work = work
        self.reading = payload is not None
        self.payload = payload or b""
        self.words = rangecoder.open_words(self.payload) if self.reading else np.zeros(1024, np.uint32)
        self.state = np.array([0, 2**64 - 1, 0], np.uint64)
        if self.reading:
            self.state[0] = np.uint64(int(self.words[0]) << 32 | int(self.words[1]))
            self.state[2] = 2

    def bits(self, value: int, count: int) -> int:
        """A whole number of `count` bits, highest first."""
        self.make_room()
        result = 0
        for k in range(count - 1, -1, -1):
            result = result << 1 | int(code_bit(self.reading, (value >> k) & 1, HALF, self.state, self.words))
        return result

    def gamma(self, value: int, most: int = 24) -> int:
        """A whole number from 1 to 2^most − 1, shorter for smaller ones."""
        self.make_room()
        return int(code_gamma(self.reading, value, most, self.state, self.words))

    def plane(self, levels: np.ndarray, plane: Plane, sets: int, model: Model) -> np.ndarray:
        """The levels of a plane; the model learns them."""
        columns, left_over, start = np.zeros(plane.cols, np.int32), np.array([0, self.work], np.int64), 0
        model.next_plane()
        while start < plane.size:
            self.make_room()
            start = code_plane(
                self.reading, start, plane.cols, plane.kernel_row, plane.kernel, plane.classes, plane.lines,
                plane.signs, sets, levels, columns, left_over, model.probabilities, model.counts, model.weights,
                self.state, self.words,
            )  # fmt: skip
            if left_over[1] < 0:
                raise DecodeError("thin: the levels take more bits than the codec's target is worth")
        self.work = int(left_over[1])
        return levels

    def make_room(self) -> None:
        """Words enough for one more number or entry."""
        if not self.reading and int(self.state[2]) + 160 > self.words.size:
            self.words = np.concatenate([self.words, np.zeros(self.words.size, np.uint32)])

    def close(self) -> bytes:
        """What was written; a reader checks that the payload ends where and as its writer ends it."""
        if self.reading:
            rangecoder.check_end(self.payload, self.words, int(self.state[2]), int(self.state[0]), int(self.state[1]))
            return self.payload
        return rangecoder.seal(self.words, int(self.state[2]), int(self.state[0]), int(self.state[1]))
