"""Figures gathered batch by batch in memory that does not grow with them."""

from collections.abc import Iterable, Iterator
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscale.batches import Batch, device_of, inputs_and_labels
from loopscale.errors import InputError
from loopscale.objective import IGNORED
from loopscale.stepping import Looped

Counted = Bool[Tensor, "batch seq"]
CAPACITY = 65_536  # tokens of each loop that quantiles are read from: all of them up to here, a fair sample beyond


@final
class LoopMeans:
    """The running mean over tokens of a figure, one per loop; kept where the figures are until it is asked for."""

    def __init__(self) -> None:
        self._sums: list[Tensor | float] = []
        self._counts: list[Tensor | int] = []

    def add(self, k: int, values: Float[Tensor, "batch seq"], counted: Counted) -> None:
        """Add loop k's figures of the tokens that count."""
        self.add_sum(k, torch.where(counted, values.detach(), 0.0).sum(dtype=torch.float64), counted)

    def add_sum(self, k: int, total: Float[Tensor, ""], counted: Counted) -> None:
        """Add the sum of loop k's figures over the tokens that count."""
        while len(self._sums) <= k:
            self._sums.append(0.0)
            self._counts.append(0)
        self._sums[k] = self._sums[k] + total
        self._counts[k] = self._counts[k] + counted.sum()

    def means(self) -> tuple[float, ...]:
        """Return the mean of every loop seen so far."""
        return tuple(float(s) / max(int(n), 1) for s, n in zip(self._sums, self._counts, strict=True))

    @property
    def tokens(self) -> int:
        """Tokens counted at the first loop."""
        return int(self._counts[0]) if self._counts else 0


@final
class Sample:
    """A uniform sample of a stream of numbers, the whole stream while it fits: every number draws a ticket."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._tickets = torch.Generator().manual_seed(0)
        self._kept = torch.empty(2, 0, dtype=torch.float64)  # tickets, values

    def add(self, values: Float[Tensor, " count"]) -> None:
        """Take in more numbers."""
        drawn = torch.rand(len(values), generator=self._tickets, dtype=torch.float64)
        kept = torch.cat([self._kept, torch.stack([drawn, values.detach().cpu().double()])], dim=1)
        if kept.shape[1] > self._capacity:
            kept = kept[:, kept[0].topk(self._capacity).indices]
        self._kept = kept

    def quantile(self, q: float) -> float:
        """Return the q-quantile, interpolated."""
        return float(self._kept[1].quantile(q))


def scored_windows(model: Looped, batches: Iterable[Batch | Any]) -> Iterator[tuple[Tensor, Tensor, Counted]]:
    """Yield inputs, labels and the tokens that count (label not ignored) of every batch, where the model's weights lie.

    Raises `InputError` for a batch of another form, or where no batch or no token that counts is left.
    """
    device = device_of(model)
    found, tokens = 0, 0
    for batch in batches:
        ids, labels = inputs_and_labels(batch)
        counted = labels != IGNORED
        found, tokens = found + 1, tokens + int(counted.sum())
        yield ids.to(device), labels.to(device), counted.to(device)
    if not tokens:
        what = f"no label of the {found} batches counts: all are {IGNORED}" if found else "there are no batches"
        raise InputError(f"{what}: give at least one (batch, seq + 1) LongTensor of tokens.")
