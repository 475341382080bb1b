"""Figures gathered batch by batch in memory that does not grow with them."""

import math
from collections.abc import Iterable, Sequence
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Counted = Bool[Tensor, "batch seq"]
Sums = Float[Tensor, "_ 4"]  # total, tokens, least and most
CAPACITY = 65_536  # tokens of each loop that quantiles are read from: all of them up to here, a fair sample beyond


@final
class LoopMeans:
    """The running mean over tokens of a figure, one per loop, and what it is without its most extreme token.

    A verdict reads the second: no single token decides it. Sums stay where the figures are until they are asked for.
    """

    def __init__(self) -> None:
        self._loops: list[_Loop] = []

    def add(self, k: int, values: Float[Tensor, "batch seq"], counted: Counted) -> None:
        """Add loop k's figures of the tokens that count."""
        self._add(k, values, counted, counted)

    def add_parts(self, k: int, parts: Float[Tensor, "batch seq"], counted: Counted) -> None:
        """Add what each token, counted or not, gives to the sum of loop k's figures over the tokens that count."""
        self._add(k, parts, torch.ones_like(counted), counted)

    def sums(self) -> Sums:
        """Return what the means are made of, where the figures are: to be taken in by others."""
        return torch.stack([loop.sums() for loop in self._loops]) if self._loops else torch.zeros(0, 4)

    def take_in(self, sums: Sums) -> None:
        """Add the figures of other tokens."""
        self._loops += [_Loop() for _ in range(len(sums) - len(self._loops))]
        for loop, more in zip(self._loops, sums, strict=False):
            loop.take_in(*more)

    def means(self) -> tuple[float, ...]:
        """Return the mean of every loop seen so far; 0 where no token counts."""
        return tuple(loop.mean() for loop in self._loops)

    def without_extremes(self) -> tuple[float, ...]:
        """Return the means, each without the token that is farthest from it."""
        return tuple(loop.without_extreme() for loop in self._loops)

    def counts(self) -> tuple[int, ...]:
        """Return the tokens counted at every loop."""
        return tuple(int(loop.count) for loop in self._loops)

    @property
    def tokens(self) -> int:
        """Tokens counted at the first loop."""
        return int(self._loops[0].count) if self._loops else 0

    def _add(self, k: int, parts: Float[Tensor, "batch seq"], given: Counted, counted: Counted) -> None:
        while len(self._loops) <= k:
            self._loops.append(_Loop())
        self._loops[k].add(parts.detach().double(), given, counted)


def added_up(batches: Iterable[Sequence[Sums]]) -> list[LoopMeans]:
    """Return the means of several figures over all batches, which hold the sums of each."""
    found: list[LoopMeans] = []
    for sums in batches:
        found += [LoopMeans() for _ in range(len(sums) - len(found))]
        for means, more in zip(found, sums, strict=True):
            means.take_in(more)
    return found


@final
class _Loop:
    """Sum, count and extremes of one loop's figures."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count: Tensor | int = 0
        self.extremes: Tensor | None = None  # smallest and largest

    def add(self, parts: Float[Tensor, "batch seq"], given: Counted, counted: Counted) -> None:
        """Take in one number per token, of those that are `given`."""
        self.take_in(
            torch.where(given, parts, 0.0).sum(),
            counted.sum(),
            torch.where(given, parts, math.inf).amin(),
            torch.where(given, parts, -math.inf).amax(),
        )

    def take_in(self, total: Tensor, count: Tensor, least: Tensor, most: Tensor) -> None:
        self.total, self.count = self.total + total, self.count + count
        if self.extremes is not None:
            least, most = torch.minimum(self.extremes[0], least), torch.maximum(self.extremes[1], most)
        self.extremes = torch.stack([least, most])

    def sums(self) -> Float[Tensor, "4"]:
        assert self.extremes is not None  # a loop is there from its first figures on
        least, most = self.extremes
        return torch.stack([torch.as_tensor(value).to(least) for value in (self.total, self.count, least, most)])

    def mean(self) -> float:
        return float(self.total) / max(int(self.count), 1)

    def without_extreme(self) -> float:
        if self.extremes is None or int(self.count) < 2:
            return self.mean()
        farthest = max(self.extremes.tolist(), key=lambda value: abs(value - self.mean()))
        return (float(self.total) - farthest) / (int(self.count) - 1)


@final
class Sample:
    """A uniform sample of a stream of numbers, the whole stream while it fits: every number draws a ticket."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._tickets = torch.Generator().manual_seed(0)
        self._kept = torch.empty(2, 0, dtype=torch.float64)  # tickets, values

    def add(self, values: Float[Tensor, " count"]) -> None:
        """Take in more numbers, which lie on the CPU."""
        drawn = torch.rand(len(values), generator=self._tickets, dtype=torch.float64)
        kept = torch.cat([self._kept, torch.stack([drawn, values.double()])], dim=1)
        if kept.shape[1] > self._capacity:
            kept = kept[:, kept[0].topk(self._capacity).indices]
        self._kept = kept

    def quantile(self, q: float) -> float:
        """Return the q-quantile, interpolated."""
        return float(self._kept[1].quantile(q))
