"""Calibration: candidates chosen on one split so that a target holds on another.

A candidate is a first exit that a rule may use and a threshold from there on. It is accepted if the target holds on the
calibration windows with a margin: the bound of a difference between two samples of windows, so that the sampling error
of the test split (taken to be as large) is in it. The bound holds for all candidates at once (the largest of their
studentised deviations, by bootstrap), so that the best of the accepted ones may be taken, wherever others fail.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.evaluate.statistics import (
    Interval,
    interval,
    resampled_means,
    resampling_weights,
    token_mean,
)
from loopscale.halting.calibrated import CalibratedRule, Rule
from loopscale.halting.rules import HaltingRule, Level
from loopscale.halting.targets import RelativePerplexity, Target
from loopscale.halting.trace import Depths, ExitTrace

CONFIDENCE = 0.99
CANDIDATE_COUNT = 256  # thresholds, over all first exits
FEWEST_CANDIDATES = 32  # thresholds of one first exit
SMALLEST_SAVING = 0.01  # share of the loops below which a rule is said to save nothing
LAXEST = torch.finfo(torch.float32).min  # stops at the first exit the rule can judge


class Candidate(NamedTuple):
    """A first exit (from 1) and a threshold."""

    first_exit: int
    threshold: float


@dataclass(frozen=True)
class Calibration:
    """The rule a calibration found, and whether it keeps the target and saves loops at all, in one sentence."""

    rule: CalibratedRule
    target: Target
    possible: bool
    note: str


def select(scores: Float[Tensor, "exits windows units"], threshold: float, seq: int, first_exit: int = 1) -> Depths:
    """Return the exit (from 0) each token stops at: the first it may use whose score reaches the threshold."""
    best_so_far = scores[first_exit - 1 :].cummax(0).values if len(scores) >= first_exit else scores[:0]
    skipped = min(first_exit - 1, len(scores))
    return skipped + (best_so_far < threshold).sum(0).expand(-1, seq)


def calibrate(
    trace: ExitTrace, rule: HaltingRule, target: Target, level: Level = "sequence", confidence: float = CONFIDENCE
) -> Calibration:
    """Choose the rule's first exit and threshold on a calibration trace.

    `confidence` is the probability with which the target is to hold on a test split of the same size. Of the candidates
    that keep it, the one with the fewest loops is taken, or with the least loss where loops are the target; a rule may
    so become a fixed exit. Raises `InputError` for fewer than 2 windows.
    """
    if trace.windows < 2:
        raise InputError("halting is calibrated on 1 window: give at least 2, better 50 or more.")
    scores, seq = trace.level_scores(rule.name, level), trace.losses.shape[-1]
    candidates = list(_candidates(scores))
    choices = [select(scores, threshold, seq, first) for first, threshold in candidates]
    kept = target.hold_elsewhere(trace, choices, confidence)
    possible = bool(kept.any())
    best = min((i for i in range(len(choices)) if kept[i]), key=lambda i: _cost(trace, choices[i], target), default=-1)
    first, threshold = candidates[best] if possible else Candidate(1, math.inf)
    found = select(scores, threshold, seq, first)
    calibrated = CalibratedRule(rule, threshold, level, trace.num_loops, first_exit=first)
    return Calibration(calibrated, target, possible, _note(trace, target, found, possible))


def _cost(trace: ExitTrace, depths: Depths, target: Target) -> tuple[float, float]:
    """Return what a choice costs of what its target leaves open, and then of what it bounds."""
    loss = float(token_mean(trace.loss_sums(depths), trace.tokens))
    loops = float(token_mean(trace.depth_sums(depths), trace.tokens))
    return (loops, loss) if target.bounds_loss else (loss, loops)


def _candidates(scores: Tensor) -> Iterator[Candidate]:
    """Yield full depth, and for every first exit that can be judged: always that one, and dividing thresholds."""
    yield Candidate(1, math.inf)
    count = max(FEWEST_CANDIDATES, CANDIDATE_COUNT // max(len(scores), 1))
    for first in range(1, len(scores) + 1):
        if not scores[first - 1].isfinite().any():
            continue
        yield Candidate(first, LAXEST)
        finite = scores[first - 1 :][scores[first - 1 :].isfinite()].double()
        ranks = torch.linspace(0, finite.numel() - 1, count).round().long()
        yield from (Candidate(first, threshold) for threshold in finite.sort().values[ranks].unique().tolist())


def _note(trace: ExitTrace, target: Target, depths: Depths, possible: bool) -> str:
    loops = float(token_mean(trace.depth_sums(depths), trace.tokens))
    if not possible:
        return f"cannot meet {target}: no threshold does on {trace.windows} windows; runs at full depth"
    if trace.num_loops - loops < SMALLEST_SAVING * trace.num_loops:
        return f"meets {target} at full depth only: saves nothing on {trace.windows} windows"
    if (only := always(trace, depths)) is not None:
        return f"is never adaptive, always exit {only}: keeps {target} on {trace.windows} windows"
    return f"keeps {target} with {loops:.2f} of {trace.num_loops} loops on {trace.windows} windows"


def always(trace: ExitTrace, depths: Depths) -> int | None:
    """Return the exit (from 1) that all scored tokens stop at, None where they differ."""
    found = depths[trace.scored].unique()
    return int(found) + 1 if found.numel() == 1 else None


@dataclass(frozen=True)
class HaltingResult(Generic[Rule]):
    """A calibrated rule on test windows. Loops count from 1; intervals are 95% bootstrap ones over windows.

    `selected_loops` is the mean exit over tokens; `executed_loops` what had to run for it: a window runs until its last
    token stops. `kept`: the target holds on these windows. `always`: the one exit that all tokens stopped at, of a rule
    that was not adaptive.
    """

    rule: Rule
    target: str
    possible: bool
    note: str
    relative_perplexity: Interval
    selected_loops: Interval
    executed_loops: Interval
    kept: bool
    windows: int
    tokens: int
    always: int | None = None


def evaluate_halting(trace: ExitTrace, calibration: Calibration, seed: int = 0) -> HaltingResult:
    """Report what a calibrated rule does on a test trace."""
    rule = calibration.rule
    scores = trace.level_scores(rule.rule.name, rule.level)
    depths = select(scores, rule.threshold, trace.losses.shape[-1], rule.first_exit)
    quality, selected, executed = _intervals(trace, depths, seed)
    return HaltingResult(
        rule=rule,
        target=str(calibration.target),
        possible=calibration.possible,
        note=calibration.note,
        relative_perplexity=quality,
        selected_loops=selected,
        executed_loops=executed,
        kept=calibration.target.holds(trace, depths),
        windows=trace.windows,
        tokens=int(trace.tokens.sum()),
        always=always(trace, depths),
    )


def _intervals(trace: ExitTrace, depths: Depths, seed: int) -> Iterator[Interval]:
    """Yield relative perplexity, selected loops and executed loops."""
    weights = resampling_weights(trace.windows, seed)
    above = RelativePerplexity().measure(trace, depths)
    for sums, as_ratio in ((above, True), (trace.depth_sums(depths), False), (trace.executed_sums(depths), False)):
        value, samples = token_mean(sums, trace.tokens), resampled_means(sums, trace.tokens, weights)
        yield interval(float(value.exp()), samples.exp()) if as_ratio else interval(float(value), samples)
