"""Slow plain range coder: one exact whole number for `low`, no words, no carries. The oracle of codecs/rangecoder.py.

Section 11 of FORMAT.md, read literally: the message is a number in [low, low + width) · 2⁻⁶⁴⁻³²ʷ, where w is how often
the interval was widened. Python's whole numbers never overflow, so a carry is nothing but an addition.
"""

WHOLE = 1 << 16


def encode(parts):
    """Bytes of (start, frequency) pairs of 2¹⁶, in coding order."""
    low, width, widened = 0, 2**64 - 1, 0
    for start, frequency in parts:
        if frequency == WHOLE:
            continue
        low += (width >> 16) * start
        width = (width >> 16) * frequency
        if width < 2**32:
            low, width, widened = low << 32, width << 32, widened + 1
    return _end(low, width, 8 + 4 * widened)


def encode_bits(bits, probabilities):
    """Bits whose P(1) is given of 2¹⁶: a one takes [0, f), a zero all the rest of the interval, rounding included."""
    low, width, widened = 0, 2**64 - 1, 0
    for bit, frequency in zip(bits, probabilities, strict=True):
        if frequency in (0, WHOLE):
            continue
        part = (width >> 16) * frequency
        low, width = (low, part) if bit else (low + part, width - part)
        if width < 2**32:
            low, width, widened = low << 32, width << 32, widened + 1
    return _end(low, width, 8 + 4 * widened)


def _end(low, width, length):
    """The number of [low, low + width) with the most trailing zero bits, big-endian, trailing zero bytes cut."""
    shift = 8 * length
    while (value := -(-low >> shift) << shift) >= low + width:
        shift -= 1
    return value.to_bytes(length, "big").rstrip(b"\0")


def decode_bits(payload, probabilities):
    """The bits back, from the exact position of the payload in the interval."""
    decoder, bits = _Position(payload), []
    for frequency in probabilities:
        if frequency in (0, WHOLE):
            bits.append(int(frequency == WHOLE))
            continue
        part = (decoder.width >> 16) * frequency
        bits.append(int(decoder.offset < part))
        decoder.take(0, part) if bits[-1] else decoder.take(part, decoder.width - part)
    return bits


def decode(payload, tables):
    """The symbols back, one cumulative table a symbol."""
    decoder, symbols = _Position(payload), []
    for cumulative in tables:
        unit = decoder.width >> 16
        target = min(decoder.offset // unit, WHOLE - 1)
        symbol = next(s for s in range(len(cumulative) - 1) if cumulative[s] <= target < cumulative[s + 1])
        symbols.append(symbol)
        if cumulative[symbol + 1] - cumulative[symbol] != WHOLE:
            decoder.take(unit * cumulative[symbol], unit * (cumulative[symbol + 1] - cumulative[symbol]))
    return symbols


class _Position:
    """Where the payload stands above `low`, in units of the interval's last bit."""

    def __init__(self, payload):
        self.payload, self.read, self.width = payload, 8, 2**64 - 1
        self.offset = int.from_bytes(payload[:8].ljust(8, b"\0"), "big")

    def take(self, start, width):
        self.offset, self.width = self.offset - start, width
        if width < 2**32:
            word = self.payload[self.read : self.read + 4].ljust(4, b"\0")
            self.offset, self.width = self.offset << 32 | int.from_bytes(word, "big"), width << 32
            self.read += 4
