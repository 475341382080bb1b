"""Trace of exits: what every rule would have seen and lost, from one full-depth pass; thresholds are tried on it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscale.batches import Batches, Window, windows_of
from loopscale.call import Call
from loopscale.errors import InputError
from loopscale.facts import depth_of, facts_of
from loopscale.halting.rules import Exit, HaltingRule, Level, row_means
from loopscale.objective import logit_losses
from loopscale.processes import each
from loopscale.stepping import Looped, evaluating

Depths = Int[Tensor, "windows seq"]
WindowSums = Float[Tensor, " windows"]


@dataclass(frozen=True)
class ExitTrace:
    """Losses of every token at every exit, and each rule's scores at every exit but the last, which always stops.

    Tensors lie on the CPU: `losses` (K, windows, seq) in nats, 0 where not `scored`; `scores[rule]` (K - 1, windows,
    seq). `real` tells tokens from what fills a window (all are by default).
    """

    losses: Float[Tensor, "loops windows seq"]
    scored: Bool[Tensor, "windows seq"]
    scores: dict[str, Float[Tensor, "exits windows seq"]]
    real: Bool[Tensor, "windows seq"] | None = None

    @property
    def num_loops(self) -> int:
        """Full depth."""
        return self.losses.shape[0]

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.losses.shape[1]

    @property
    def tokens(self) -> WindowSums:
        """Scored tokens of every window."""
        return self.scored.sum(-1).double()

    def level_scores(self, rule: str, level: Level) -> Float[Tensor, "exits windows units"]:
        """Return the scores that decide: one per token, or one per sequence (the mean over its tokens)."""
        scores = self.scores[rule]
        return row_means(scores, self.real) if level == "sequence" else scores

    def loss_sums(self, depths: Depths) -> WindowSums:
        """Return the summed loss of every window when each token is decoded at its exit (from 0) in `depths`."""
        return self.losses.gather(0, depths[None])[0].double().sum(-1)

    def depth_sums(self, depths: Depths) -> WindowSums:
        """Return the summed selected loops (from 1) over the scored tokens of every window."""
        return ((depths + 1) * self.scored).double().sum(-1)

    def executed_sums(self, depths: Depths) -> WindowSums:
        """Return the executed loops per window, times its scored tokens: a window runs until its last token stops."""
        if self.real is not None:
            depths = depths.where(self.real, 0)
        return (depths.amax(-1) + 1) * self.tokens


def trace_exits(
    model: Looped | Any, batches: Batches, rules: Sequence[HaltingRule], num_loops: int | None = None
) -> ExitTrace:
    """Run every window to full depth (default: the model's) and record each exit's losses and every rule's scores.

    Holds windows x seq x (loops) x (1 + rules) float32 numbers. Raises `InputError` for a rule the model has no part
    for, or windows of different lengths.
    """
    K = depth_of(model, num_loops)
    if len({rule.name for rule in rules}) < len(rules):
        raise InputError("the same halting rule is given twice: name each once.")
    for rule in rules:
        rule.require_fit(model)

    def of_window(window: Window) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        losses, scores = _trace_batch(model, window.inputs, window.labels, rules, K)
        return losses, window.counted.cpu(), scores, window.real.cpu()

    with evaluating(model):
        windows = _of_one_length(windows_of(model, batches, facts_of(model).padding))
        losses, scored, scores, rows = zip(*each(windows, of_window), strict=True)
    return ExitTrace(
        torch.cat(losses, 1),
        torch.cat(scored),
        {rule.name: torch.cat([batch[rule.name] for batch in scores], 1) for rule in rules},
        torch.cat(rows),
    )


def _of_one_length(windows: Iterable[Window]) -> Iterator[Window]:
    length: int | None = None
    for window in windows:
        found = window.labels.shape[1]
        if length not in (None, found):
            raise InputError(f"windows of {length} and of {found} tokens: calibrate halting on one length.")
        length = found
        yield window


def _trace_batch(
    model: Looped, inputs: Tensor, labels: Tensor, rules: Sequence[HaltingRule], K: int
) -> tuple[Tensor, dict[str, Tensor]]:
    losses = []
    scores: dict[str, list[Tensor]] = {rule.name: [] for rule in rules}
    before: dict[str, Exit | None] = dict.fromkeys(scores)
    call = Call(model, inputs)
    for k, z in enumerate(call.states(K)):
        logits = call.readout(z, k)
        losses.append(logit_losses(logits, labels))
        if k + 1 == K:
            break
        for rule in rules:
            found = rule.scores(call, Exit(k, z, logits), before[rule.name])
            scores[rule.name].append(found)
            before[rule.name] = Exit(k, z, logits, found)
    empty = torch.empty(0, *labels.shape)
    return torch.stack(losses).cpu(), {
        name: torch.stack(values).cpu() if values else empty for name, values in scores.items()
    }
