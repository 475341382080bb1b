"""Metrics of training: loss, and cross-entropy and norm of every loop, summed on the device between two log lines.

One transfer per line instead of one per step; what is summed when a run stops goes into its checkpoint, so that the
line it would have made is made when the run goes on.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from loopscale.objective import IGNORED, next_tokens

Rows = Float[Tensor, "batch loops"]
Sums = Float[Tensor, "figure sum_and_weight loops"]  # cross-entropy and norm; summed over tokens, and how many


def token_sums(inputs: Mapping[str, Any], losses: Rows, norms: Rows, seen: Sequence[bool] | None = None) -> Sums:
    """Return sums over the tokens of a batch of what is meaned over every row's, (2, 2, K), and their numbers.

    Labels that count weigh the losses, real tokens the norms. `seen` are the exits whose losses are known (all).
    """
    shifted, labels, mask = (inputs.get(name) for name in ("shift_labels", "labels", "attention_mask"))
    if shifted is None and labels is not None:
        shifted = next_tokens(labels)
    sums = torch.stack([_summed(losses, None if shifted is None else shifted != IGNORED), _summed(norms, mask)])
    if seen is not None and not all(seen):
        sums = torch.stack([torch.where(_mask(tuple(seen), sums.device), sums[0], 0.0), sums[1]])
    return sums


@lru_cache(64)
def _mask(seen: tuple[bool, ...], device: torch.device) -> Bool[Tensor, " loops"]:
    """Return it on the device: copied once, for every copy makes an accelerator wait."""
    return torch.tensor(seen, device=device)


def _summed(rows: Rows, tokens: Tensor | None) -> Float[Tensor, "sum_and_weight loops"]:
    """Return the sum of rows that weigh as much as they have tokens, or alike, and the weights' own."""
    weights = torch.ones_like(rows[:, 0]) if tokens is None or tokens.ndim != 2 else tokens.sum(1).to(rows)
    return torch.stack([(weights[:, None] * rows).sum(0), weights.sum().expand(rows.shape[1])])


@final
class LoopSums:
    """Sums since the last log line, and the loss summed over the whole run. Steps may differ in their loops."""

    def __init__(self) -> None:
        self.loss: Tensor | None = None  # summed over steps, on the device
        self.loops: Sums | None = None
        self.latest: Sums | None = None  # of one micro-batch
        self.logged_loss = 0.0  # of the lines before, over the whole run
        self.since = 0  # the step of the last line

    def add(self, sums: Sums) -> None:
        """Add what one micro-batch gave (`token_sums`)."""
        self.latest = sums
        if self.loops is not None and (missing := sums.shape[2] - self.loops.shape[2]):
            self.loops, sums = pad(self.loops, (0, max(0, missing))), pad(sums, (0, max(0, -missing)))
        self.loops = sums if self.loops is None else self.loops + sums

    def add_loss(self, loss: Float[Tensor, ""]) -> None:
        """Add the loss of one micro-batch, its share of the step's."""
        self.loss = loss if self.loss is None else self.loss + loss

    def figures(self, grad_norm: Tensor | None) -> Float[Tensor, " figures"]:
        """Return, on the device, loss, gradient, sums of the loops' norms and losses, and the latest mean norms.

        All are since the last line, but for the latest: those of the latest micro-batch, 0 for loops it did not run.
        """
        assert self.loss is not None and self.loops is not None and self.latest is not None  # a step was made
        ends = [self.loss, self.loss if grad_norm is None else grad_norm.to(self.loss)]
        norms = pad(self.latest[1, 0] / self.latest[1, 1], (0, self.loops.shape[2] - self.latest.shape[2]))
        return torch.cat([torch.stack(ends), torch.cat([*self.loops[:, 0].flip(0), norms]).to(self.loss)])

    def line(self, step: int, sums: tuple[float, list[list[list[float]]]]) -> dict[str, float]:
        """Return the log line of the steps since the last: mean loss, and means over tokens of every loop's figures.

        `sums` are the loss and the loops' sums as plain numbers, meaned over processes.
        """
        loss, loops = sums
        means = {"loss": loss / max(1, step - self.since)}
        for name, (values, weights) in zip(("losses", "norms"), loops, strict=True):
            means |= {f"loop_{name}/{k}": v / n for k, (v, n) in enumerate(zip(values, weights, strict=True), 1) if n}
        return means

    def start_anew(self, step: int, loss: float) -> None:
        """Begin the next line after `step`; `loss` is what the line just made had summed."""
        self.logged_loss += loss
        self.loss = self.loops = None
        self.since = step

    def to_dict(self, sums: tuple[float, list[list[list[float]]]] | None) -> dict[str, Any]:
        """Return plain values for a checkpoint, with the present sums meaned over processes."""
        kept = {"logged_loss": self.logged_loss, "since": self.since}
        return kept if sums is None else {**kept, "loss": sums[0], "loops": sums[1]}

    def take_up(self, kept: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `to_dict` returned."""
        self.logged_loss, self.since = float(kept["logged_loss"]), int(kept["since"])
        if "loss" in kept:
            self.loss = torch.tensor(kept["loss"], device=device)
        if "loops" in kept and "counts" not in kept:  # version 0.1 summed means of micro-batches: they cannot be added
            self.loops = torch.tensor(kept["loops"], device=device)
