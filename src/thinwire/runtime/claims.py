"""How many samples a client may say that it trained on, or was scored on: what it sends weighs as much as it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

TIMES = 10  # what the round's median claim may be exceeded by, where clients have samples of their own


@dataclass(frozen=True)
class Claims:
    """The bound on a client's claim.

    dealt: the samples that the server's own partition has for a client, to train on or held back. told:
    `server.max_samples`.
    own: may clients have samples that the server did not deal? Then, where `told` is not set, a claim is also good up
    to TIMES the median of the claims of the round: fewer than half of the clients cannot move that median beyond what
    an honest client says.
    """

    dealt: Callable[[int], int]
    told: int | None = None
    own: bool = False

    def most(self, client: int, said: Sequence[int]) -> int:
        """The most that a client may claim. said: all claims of the round, in any order; looked at only if `own`."""
        if self.own and self.told:
            return self.told
        dealt = self.dealt(client)
        if self.own:
            return max(dealt, TIMES * median_low(said))
        return min(dealt, self.told or dealt)
