"""Draft policy: when to draft, as soon as an exit was read or only where the token is likely enough to stand."""

from abc import ABC, abstractmethod
from bisect import bisect
from math import exp
from typing import final


class DraftPolicy(ABC):
    """Decides whether the token that an exit would draft is worth running. Never looks at the token itself.

    That keeps sampling exact: a draft that is dropped because of its own value would bend the distribution.
    """

    @abstractmethod
    def chance(self, k: int, gap: float) -> float:
        """Return how likely a token that exit k finds ahead by `gap` nats is to stand at full depth."""

    @abstractmethod
    def pays(self, chance: float) -> bool:
        """Return whether to draft a token that stands, together with all that it rests on, with this chance."""

    @abstractmethod
    def learn(self, k: int, gap: float, stood: bool) -> None:
        """Hear how a token fared that exit k had found ahead by `gap` nats."""


@final
class Always(DraftPolicy):
    """Draft whatever comes."""

    def chance(self, k: int, gap: float) -> float:
        """Return 1."""
        return 1.0

    def pays(self, chance: float) -> bool:
        """Return True."""
        return True

    def learn(self, k: int, gap: float, stood: bool) -> None:
        """Nothing to learn."""


@final
class WhereLikely(DraftPolicy):
    """Draft where the chance is at least `worth`: what a loop more in a pass costs, as a share of the pass.

    How often an exit that sure is confirmed is counted as decoding goes on, by exit and confidence. A token that is not
    drafted is not lost: the next exit of the token before it is asked again.
    """

    EDGES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the bins of confidence: gaps in nats
    PRIOR = 4.0  # pseudo-counts per bin, at the share that the exit's two likeliest tokens have of each other

    def __init__(self, num_loops: int, worth: float = 0.1) -> None:
        self.worth = worth
        shares = [1 / (1 + exp(-gap)) for gap in (0.0, *self.EDGES)]
        self.tried = [[self.PRIOR] * len(shares) for _ in range(num_loops)]
        self.stood = [[self.PRIOR * share for share in shares] for _ in range(num_loops)]

    def chance(self, k: int, gap: float) -> float:
        """Return the share of such tokens that stood."""
        i = bisect(self.EDGES, gap)
        return self.stood[k][i] / self.tried[k][i]

    def pays(self, chance: float) -> bool:
        """Return whether the chance is worth a loop."""
        return chance >= self.worth

    def learn(self, k: int, gap: float, stood: bool) -> None:
        """Count it."""
        i = bisect(self.EDGES, gap)
        self.tried[k][i] += 1
        self.stood[k][i] += stood
