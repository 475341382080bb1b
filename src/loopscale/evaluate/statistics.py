"""Sampling errors of means per token. The unit of sampling is a window: its tokens are not independent.

A quantity comes as its sum over the scored tokens of every window, (..., windows), and the token counts, (windows,).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import torch
from jaxtyping import Float
from torch import Tensor

Sums = Float[Tensor, "*exits windows"]
Counts = Float[Tensor, " windows"]
Weights = Float[Tensor, "resamples windows"]
Samples = Float[Tensor, "resamples *exits"]

RESAMPLES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def token_mean(sums: Sums, counts: Counts) -> Float[Tensor, "*exits"]:
    """Return the mean over all scored tokens."""
    return sums.sum(-1) / counts.sum()


def standard_error(sums: Sums, counts: Counts) -> Float[Tensor, "*exits"]:
    """Return the standard error of `token_mean` over windows (ratio estimator); NaN for a single window."""
    n = counts.numel()
    residual = sums - token_mean(sums, counts)[..., None] * counts
    return (residual.square().sum(-1) * n / (n - 1)).sqrt() / counts.sum() if n > 1 else residual.sum(-1) * torch.nan


def resampling_weights(windows: int, seed: int = 0, resamples: int = RESAMPLES) -> Weights:
    """Return how often each window is drawn in each bootstrap sample."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(windows, (resamples, windows), generator=generator)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros(resamples, windows, dtype=torch.float64).scatter_add_(1, drawn, ones)


def resampled_means(sums: Sums, counts: Counts, weights: Weights) -> Samples:
    """Return `token_mean` of every bootstrap sample."""
    totals = weights @ sums.reshape(-1, counts.numel()).T  # (S, exits)
    return (totals / (weights @ counts)[:, None]).reshape(-1, *sums.shape[:-1])


def interval(value: float, samples: Float[Tensor, " resamples"], coverage: float = COVERAGE) -> Interval:
    """Return the value with the percentile interval of its bootstrap samples."""
    tail = (1 - coverage) / 2
    low, high = torch.quantile(samples, samples.new_tensor([tail, 1 - tail])).tolist()
    return Interval(value, low, high)


def interval_over_seeds(values: Sequence[float], coverage: float = COVERAGE) -> Interval | None:
    """Return the mean of one value per seed with Student's interval; None for fewer than 2."""
    if len(values) < 2:
        return None
    mean, reach = fmean(values), student_t(len(values) - 1, coverage) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def student_t(freedom: int, coverage: float = COVERAGE) -> float:
    """Return the t within which a Student variable of so many degrees of freedom lies with that probability."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < coverage:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < coverage else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return P(|T| < t): the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    term = total = math.cos(angle) if freedom % 2 else 1.0
    for i in range(2 + freedom % 2, freedom - 1, 2):
        term *= math.cos(angle) ** 2 * (i - 1) / i
        total += term
    if freedom % 2:
        return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
    return math.sin(angle) * total


def one_sided_z(confidence: float) -> float:
    """Return the normal quantile of a one-sided confidence."""
    return NormalDist().inv_cdf(confidence)
