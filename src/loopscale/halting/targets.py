"""Targets of halting: what it must keep on average, on other windows than those it is calibrated on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool
from torch import Tensor

from loopscale.errors import InputError
from loopscale.evaluate.statistics import one_sided_z, resampled_means, resampling_weights, standard_error, token_mean
from loopscale.halting.trace import Depths, ExitTrace, WindowSums


class Target(ABC):
    """What halting must keep on average."""

    bounds_loss: ClassVar[bool]  # a target bounds the loss above full depth, or the loops

    @abstractmethod
    def measure(self, trace: ExitTrace, depths: Depths) -> WindowSums:
        """Return per window the sum over tokens of what is bounded, when tokens are decoded at `depths` (from 0)."""

    @abstractmethod
    def limit(self) -> float:
        """Return what its mean per token must not exceed."""

    def worst(self, trace: ExitTrace) -> float | None:
        """Return the largest value per token there can be, None if it is not known."""
        return None

    def holds(self, trace: ExitTrace, depths: Depths) -> bool:
        """Return whether the target holds on these windows."""
        return float(token_mean(self.measure(trace, depths), trace.tokens)) <= self.limit()

    def hold_elsewhere(
        self, trace: ExitTrace, choices: Sequence[Depths], confidence: float
    ) -> Bool[Tensor, " candidates"]:
        """Return which choices keep it on other windows, as many as these, all at once with that confidence.

        Where the worst value is known, a window that has it is added: windows that all agree prove little. A choice
        of one exit for all has no sampling error in its loops, and full depth none in its loss above that.
        """
        sums, tokens = torch.stack([self.measure(trace, depths) for depths in choices]), trace.tokens
        means, certain = token_mean(sums, tokens), torch.tensor([self._is_certain(trace, d) for d in choices])
        if (worst := self.worst(trace)) is not None:
            typical = tokens.mean()[None]
            sums, tokens = torch.cat([sums, (worst * typical).expand(len(sums), 1)], 1), torch.cat([tokens, typical])
        error = standard_error(sums, tokens)
        bounds = token_mean(sums, tokens) + _largest_deviation(sums, tokens, confidence) * math.sqrt(2) * error
        return torch.where(certain, means, bounds) <= self.limit()

    def _is_certain(self, trace: ExitTrace, depths: Depths) -> bool:
        """Return whether the same choice has the same measure on any windows."""
        only = int(depths.flatten()[0])
        return bool((depths == only).all()) and (not self.bounds_loss or only == trace.num_loops - 1)


def _largest_deviation(sums: Tensor, tokens: Tensor, confidence: float) -> float:
    """Return how many standard errors no mean lies off, with that confidence, by bootstrap; no fewer than one alone.

    Few windows show too little of the tails for a bootstrap: the normal quantile of a single candidate is the least.
    """
    error, means = standard_error(sums, tokens), token_mean(sums, tokens)
    uncertain = (error > 0) & error.isfinite()
    if not uncertain.any():
        return 0.0
    alone = one_sided_z(confidence)
    samples = resampled_means(sums[uncertain], tokens, resampling_weights(tokens.numel()))  # (samples, candidates)
    deviations = ((means[uncertain] - samples) / error[uncertain]).amax(-1)
    return max(alone, float(torch.quantile(deviations, confidence)))


@final
@dataclass(frozen=True)
class RelativePerplexity(Target):
    """Perplexity at most `factor` times that of the full depth, in as few loops as possible."""

    factor: float = 1.01
    bounds_loss = True

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise InputError(f"relative perplexity {self.factor:g}: give at least 1, the full depth's own.")

    def measure(self, trace: ExitTrace, depths: Depths) -> WindowSums:
        """Return the loss above full depth."""
        return trace.loss_sums(depths) - trace.losses[-1].double().sum(-1)

    def limit(self) -> float:
        """Return the allowed nats per token."""
        return math.log(self.factor)

    def __str__(self) -> str:
        return f"relative perplexity {self.factor:g}"


@final
@dataclass(frozen=True)
class MeanLoops(Target):
    """At most `loops` selected loops per token on average, with as little loss as possible."""

    loops: float
    bounds_loss = False

    def __post_init__(self) -> None:
        if not self.loops >= 1:
            raise InputError(f"mean loops {self.loops:g}: every token runs at least 1 loop.")

    def measure(self, trace: ExitTrace, depths: Depths) -> WindowSums:
        """Return the selected loops."""
        return trace.depth_sums(depths)

    def limit(self) -> float:
        """Return the allowed loops per token."""
        return self.loops + 1e-9  # a mean of equal integers may round up

    def worst(self, trace: ExitTrace) -> float:
        """Return the full depth."""
        return float(trace.num_loops)

    def __str__(self) -> str:
        return f"mean loops {self.loops:g}"
