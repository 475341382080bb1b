"""How long a draft goes on: a fixed number of tokens, or as long as the next one is likely to pay."""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor


class DraftLength(ABC):
    """Decides before each drafted token whether to draft it. May look at what came before, never at the token itself.

    That keeps sampling exact: a draft that is dropped because of its own value would bend the distribution.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    @abstractmethod
    def pays(self, confidence: Float[Tensor, " rows"]) -> bool:
        """Return whether to draft one more, given the drafting exit's largest probability in every unfinished row."""

    @abstractmethod
    def learn(self, accepted: list[int], passes: int) -> None:
        """Hear how many drafts of the cycle now over stood in every unfinished row, and how many passes it took."""


@final
class FixedLength(DraftLength):
    """Always the limit."""

    def pays(self, confidence: Float[Tensor, " rows"]) -> bool:
        """Return True."""
        return True

    def learn(self, accepted: list[int], passes: int) -> None:
        """Nothing to learn."""


@final
class AdaptiveLength(DraftLength):
    """Draft on while the expected gain per pass is above what decoding has given per pass so far.

    A token more costs `draft_loops` passes and counts only if it and all drafted before it are accepted. How often an
    exit that sure is confirmed is counted as decoding goes on, in bins of confidence. Comparing the marginal gain with
    the running ratio of tokens to passes finds the length that makes the ratio largest (Dinkelbach's method).
    """

    BINS = 10
    PRIOR = 8.0  # pseudo-counts per bin, at 1 - (1 - c)^2: an exit is confirmed more often than its probability c says
    START = 1.5  # speed-up assumed before anything is known

    def __init__(self, draft_loops: int, num_loops: int, most: int) -> None:
        super().__init__(most)
        self.draft_loops = draft_loops
        self.tokens, self.passes = self.START, float(num_loops)
        self.tried = [self.PRIOR] * self.BINS
        self.stood = [self.PRIOR * (1 - (1 - (i + 0.5) / self.BINS) ** 2) for i in range(self.BINS)]
        self.chances: list[float] = []  # that every row's draft stands so far
        self.bins: list[list[int]] = []  # [draft][row]

    def pays(self, confidence: Float[Tensor, " rows"]) -> bool:
        """Return whether the draft, one token longer, is likely enough to stand."""
        bins = [min(int(c * self.BINS), self.BINS - 1) for c in confidence.tolist()]
        before = self.chances or [1.0] * len(bins)
        chances = [chance * self.stood[i] / self.tried[i] for chance, i in zip(before, bins, strict=True)]
        if sum(chances) / len(chances) < self.draft_loops * self.tokens / self.passes:
            return False
        self.chances = chances
        self.bins.append(bins)
        return True

    def learn(self, accepted: list[int], passes: int) -> None:
        """Count the drafts that stood and the first of every row that did not."""
        for row, kept in enumerate(accepted):
            for t, bins in enumerate(self.bins[: kept + 1]):
                self.tried[bins[row]] += 1
                self.stood[bins[row]] += t < kept
        self.tokens += 1 + sum(accepted) / len(accepted)
        self.passes += passes
        self.chances, self.bins = [], []
