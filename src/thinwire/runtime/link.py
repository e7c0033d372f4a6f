"""A model of slow links: how long a round's messages would take, from their bytes alone.

Seconds of a round, over the clients c that were sent a message in it:

    max_c  2 · latency · m(c) + 8 · down(c) / (10⁶ · down_mbps · f(c)) + 8 · up(c) / (10⁶ · up_mbps · f(c))

m: messages sent to c; down, up: bytes to and from c, envelopes and headers included. Keyframes asked for and messages
of an evaluation count with the rest. All clients send and receive side by side, none of them while it trains, and the
server's own link is never the narrow one. A client that does not answer counts with what it was sent.
f(c) = exp(spread · z), z a standard normal number drawn from (seed, c, "link"): both rates of a slow client are low.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

from thinwire import rng


@dataclass
class Crossings:
    """What crossed between the server and each client: messages to it, bytes to it, bytes from it."""

    messages: Counter[int] = field(default_factory=Counter)
    down: Counter[int] = field(default_factory=Counter)
    up: Counter[int] = field(default_factory=Counter)

    def sent(self, sizes: Mapping[int, int]) -> None:
        """Count one message to each of some clients, of so many bytes."""
        self.messages.update(sizes.keys())
        self.down.update(sizes)

    def received(self, client: int, size: int) -> None:
        """Count an answer's bytes."""
        self.up[client] += size

    def __add__(self, other: Crossings) -> Crossings:
        return Crossings(self.messages + other.messages, self.down + other.down, self.up + other.up)


@dataclass(frozen=True)
class Link:
    """The links between server and clients: rates in 10⁶ bit/s, latency of one direction in ms, spread of the rates."""

    up_mbps: float
    down_mbps: float
    latency_ms: float
    spread: float = 0.0
    seed: int = 0

    def factor(self, client: int) -> float:
        """What both rates of a client are multiplied by."""
        return exp(self.spread * rng.generator(self.seed, client=client, purpose="link").standard_normal())

    def seconds(self, crossings: Crossings) -> float:
        """How long the slowest client takes for all that crosses in a round; see the equation above."""
        return max((self._client(client, crossings) for client in crossings.messages), default=0.0)

    def _client(self, client: int, crossings: Crossings) -> float:
        waiting = 2e-3 * self.latency_ms * crossings.messages[client]
        moving = crossings.down[client] / self.down_mbps + crossings.up[client] / self.up_mbps
        return waiting + 8e-6 * moving / self.factor(client)
