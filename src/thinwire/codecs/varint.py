"""Whole numbers as LEB128 varints: seven bits a byte, lowest first, the top bit says that more follow."""

from __future__ import annotations

from collections.abc import Iterable

from thinwire.codecs import trace
from thinwire.codecs.kernels import njit
from thinwire.errors import ConfigError, DecodeError

MAX_BITS = 56


@njit(cache=True)
def length(number):  # type: ignore[no-untyped-def]
    """Bytes of one varint."""
    count = 1
    while number >= 0x80:
        number >>= 7
        count += 1
    return count


def write(numbers: Iterable[int]) -> bytes:
    """Varints one after the other; each number from 0 to 2⁵⁶ − 1."""
    whole, out = [int(number) for number in numbers], bytearray()
    if whole and min(whole) >= 0 and max(whole) < 0x80:
        return bytes(whole)
    for number in whole:
        if not 0 <= number < 2**MAX_BITS:
            raise ConfigError("varint", number, f"0 to 2^{MAX_BITS} - 1")
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


class Reader:
    """Takes numbers off the front of a payload; `rest()` is what follows them."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.position = 0

    def next(self, most: int = 2**MAX_BITS - 1) -> int:
        """The next number; DecodeError when the payload ends, the number is above `most` or not written shortest."""
        value = 0
        for shift in range(0, MAX_BITS, 7):
            if self.position >= len(self.payload):
                raise DecodeError("varint: payload ends inside a number")
            byte = self.payload[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value > most:
                    raise DecodeError(f"varint: {value} is above {most} or not in its shortest form")
                return value
        raise DecodeError(f"varint: longer than {MAX_BITS} bits")

    def rest(self) -> bytes:
        """All bytes behind the numbers taken so far."""
        return self.payload[self.position :]

    def take(self, count: int) -> bytes:
        """The next `count` bytes; DecodeError when there are fewer."""
        part = self.payload[self.position : self.position + count]
        if len(part) != count:
            raise DecodeError(f"payload: {len(part)} bytes left, {count} named")
        self.position += count
        return part

    def sized(self) -> bytes:
        """The next bytes, whose number comes first; DecodeError when there are fewer."""
        start = self.position
        count = self.next()
        trace.cut("header", self.position - start)
        return self.take(count)

    def end(self) -> None:
        """DecodeError when bytes are left over."""
        if self.position != len(self.payload):
            raise DecodeError(f"payload: {len(self.payload) - self.position} bytes are left over")
