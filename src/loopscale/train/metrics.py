"""Metrics of training: loss, and cross-entropy and norm of every loop, summed on the device between two log lines.

One transfer per line instead of one per step; what is summed when a run stops goes into its checkpoint, so that the
line it would have made is made when the run goes on.
"""

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from loopscale.objective import IGNORED, next_tokens

Rows = Float[Tensor, "batch loops"]
Means = Float[Tensor, " loops"]


def token_means(inputs: Mapping[str, Any], losses: Rows, norms: Rows) -> tuple[Means, Means]:
    """Return means over the tokens of a batch, of what is meaned over every row's: labels that count, real tokens."""
    shifted, labels, mask = (inputs.get(name) for name in ("shift_labels", "labels", "attention_mask"))
    if shifted is None and labels is not None:
        shifted = next_tokens(labels)
    return _weighted(losses, None if shifted is None else shifted != IGNORED), _weighted(norms, mask)


def _weighted(rows: Rows, tokens: Tensor | None) -> Means:
    """Return the mean of rows that weigh as much as they have tokens."""
    if tokens is None or tokens.ndim != 2:
        return rows.mean(0)
    weights = tokens.sum(1).to(rows)
    return (weights[:, None] * rows).sum(0) / weights.sum().clamp_min(1)


@final
class LoopSums:
    """Sums since the last log line, and the loss summed over the whole run. Steps may differ in their loops."""

    def __init__(self) -> None:
        self.loss: Tensor | None = None  # summed over steps, on the device
        self.loops: Float[Tensor, "2 loops"] | None = None  # cross-entropy and norm, summed over micro-batches
        self.counts: list[list[int]] = [[], []]  # how many were summed, of either and every loop
        self.logged_loss = 0.0  # of the lines before, over the whole run
        self.since = 0  # the step of the last line
        self._masks: dict[tuple[bool, ...], Tensor] = {}

    def add(self, losses: Float[Tensor, " loops"], norms: Float[Tensor, " loops"], seen: list[bool]) -> None:
        """Add what one micro-batch gave; `seen` are the exits that its loss saw."""
        metrics = torch.stack([self._of_seen(losses.detach(), seen), norms.detach()])
        K, before = len(seen), 0 if self.loops is None else self.loops.shape[1]
        if self.loops is None:
            self.loops = metrics
        elif before == K:
            self.loops = self.loops + metrics
        else:
            widest = max(before, K)
            self.loops = pad(self.loops, (0, widest - before)) + pad(metrics, (0, widest - K))
        for counts, counted in zip(self.counts, (seen, [True] * K), strict=True):
            counts += [0] * (K - len(counts))
            for k, one in enumerate(counted):
                counts[k] += one

    def add_loss(self, loss: Float[Tensor, ""]) -> None:
        """Add the loss of one micro-batch, its share of the step's."""
        self.loss = loss if self.loss is None else self.loss + loss

    def finite(self, grad_norm: Tensor | None) -> Bool[Tensor, " figures"]:
        """Return, on the device, which of loss, gradient, norms and losses of the loops are finite so far."""
        assert self.loss is not None and self.loops is not None  # a step was made
        ends = [self.loss, self.loss if grad_norm is None else grad_norm.to(self.loss)]
        return torch.isfinite(torch.cat([torch.stack(ends), self.loops.flip(0).flatten().to(self.loss)]))

    def line(self, step: int, sums: tuple[float, list[list[float]]]) -> dict[str, float]:
        """Return the log line of the steps since the last: mean loss, and mean figures of every loop.

        `sums` are the loss and the loops' figures as plain numbers, meaned over processes.
        """
        loss, (losses, norms) = sums
        means = {"loss": loss / max(1, step - self.since)}
        for name, values, counts in (("losses", losses, self.counts[0]), ("norms", norms, self.counts[1])):
            means |= {f"loop_{name}/{k}": v / n for k, (v, n) in enumerate(zip(values, counts, strict=True), 1) if n}
        return means

    def start_anew(self, step: int, loss: float) -> None:
        """Begin the next line after `step`; `loss` is what the line just made had summed."""
        self.logged_loss += loss
        self.loss = self.loops = None
        self.counts, self.since = [[], []], step

    def to_dict(self, sums: tuple[float, list[list[float]]] | None) -> dict[str, Any]:
        """Return plain values for a checkpoint, with the present sums meaned over processes."""
        kept = {"logged_loss": self.logged_loss, "since": self.since, "counts": self.counts}
        return kept if sums is None else {**kept, "loss": sums[0], "loops": sums[1]}

    def take_up(self, kept: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `to_dict` returned."""
        self.logged_loss, self.since = float(kept["logged_loss"]), int(kept["since"])
        self.counts = [list(map(int, counts)) for counts in kept["counts"]]
        if "loss" in kept:
            self.loss = torch.tensor(kept["loss"], device=device)
            self.loops = torch.tensor(kept["loops"], device=device)

    def _of_seen(self, losses: Tensor, seen: list[bool]) -> Tensor:
        """Return the losses with 0 for exits that were not computed, which are NaN."""
        if all(seen):
            return losses
        key = tuple(seen)
        if key not in self._masks:
            self._masks[key] = torch.tensor(seen, device=losses.device)
        return torch.where(self._masks[key], losses, 0.0)
