"""Calibration: candidates chosen on one split so that a target holds on another.

A threshold is accepted if the target holds on the calibration windows with a margin: the one-sided bound of a
difference between two samples of windows, so that the sampling error of the test split (taken to be as large) is in it.
Candidates are tried from the safe end on and the search stops at the first that fails (fixed-sequence testing), so
trying many of them does not loosen the promise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.evaluate.statistics import (
    Interval,
    interval,
    one_sided_z,
    resampled_means,
    resampling_weights,
    standard_error,
    token_mean,
)
from loopscale.halting.calibrated import CalibratedRule
from loopscale.halting.rules import HaltingRule, Level
from loopscale.halting.trace import Depths, ExitTrace, WindowSums

CONFIDENCE = 0.99
CANDIDATE_COUNT = 256
SMALLEST_SAVING = 0.01  # share of the loops below which a rule is said to save nothing
LAXEST = torch.finfo(torch.float32).min  # stops at the first exit the rule can judge
Candidates = Float[Tensor, " candidates"]


class Target(ABC):
    """What halting must keep on average."""

    bounds_loss: ClassVar[bool]  # a target bounds the loss above full depth, or the loops

    @abstractmethod
    def measure(self, trace: ExitTrace, depths: Depths) -> WindowSums:
        """Return per window the sum over tokens of what is bounded, when tokens are decoded at `depths` (from 0)."""

    @abstractmethod
    def limit(self) -> float:
        """Return what its mean per token must not exceed."""

    @abstractmethod
    def safe_first(self, thresholds: Candidates) -> Candidates:
        """Order ascending thresholds from the one that surely keeps the target to the one that saves or gains most."""

    def worst(self, trace: ExitTrace) -> float | None:
        """Return the largest value per token there can be, None if it is not known."""
        return None

    def holds(self, trace: ExitTrace, depths: Depths) -> bool:
        """Return whether the target holds on these windows."""
        return float(token_mean(self.measure(trace, depths), trace.tokens)) <= self.limit()

    def holds_elsewhere(self, trace: ExitTrace, depths: Depths, confidence: float) -> bool:
        """Return whether it holds with the margin of a one-sided confidence for other windows, as many as these.

        Where the worst value is known, a window that has it is added: windows that all agree prove little.
        """
        sums, tokens, worst = self.measure(trace, depths), trace.tokens, self.worst(trace)
        if worst is not None:
            typical = tokens.mean()[None]
            sums, tokens = torch.cat([sums, worst * typical]), torch.cat([tokens, typical])
        margin = one_sided_z(confidence) * math.sqrt(2) * standard_error(sums, tokens)
        return float(token_mean(sums, tokens) + margin) <= self.limit()


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

    def safe_first(self, thresholds: Candidates) -> Candidates:
        """Strict thresholds first."""
        return thresholds.flip(0)

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

    def safe_first(self, thresholds: Candidates) -> Candidates:
        """Lax thresholds first."""
        return thresholds

    def __str__(self) -> str:
        return f"mean loops {self.loops:g}"


@dataclass(frozen=True)
class Calibration:
    """The rule a calibration found, and whether it keeps the target and saves loops at all, in one sentence."""

    rule: CalibratedRule
    target: Target
    possible: bool
    note: str


def select(scores: Float[Tensor, "exits windows units"], threshold: float, seq: int) -> Depths:
    """Return the exit (from 0) each token stops at: the first whose score reaches the threshold, else the last."""
    best_so_far = scores.cummax(0).values if len(scores) else scores
    return (best_so_far < threshold).sum(0).expand(-1, seq)


def calibrate(
    trace: ExitTrace, rule: HaltingRule, target: Target, level: Level = "sequence", confidence: float = CONFIDENCE
) -> Calibration:
    """Choose the rule's threshold on a calibration trace.

    `confidence` is the one-sided probability with which the target is to hold on a test split of the same size.
    Raises `InputError` for fewer than 2 windows.
    """
    if trace.windows < 2:
        raise InputError("halting is calibrated on 1 window: give at least 2, better 50 or more.")
    scores, seq = trace.level_scores(rule.name, level), trace.losses.shape[-1]
    safest, *others = target.safe_first(_candidates(scores)).tolist()
    # the safe end stops all tokens at one exit, so that loops have no sampling error there and losses are full depth's
    possible = target.holds(trace, select(scores, safest, seq))
    found = safest if possible else math.inf
    for threshold in others if possible else ():
        if not target.holds_elsewhere(trace, select(scores, threshold, seq), confidence):
            break
        found = threshold
    loops = float(token_mean(trace.depth_sums(select(scores, found, seq)), trace.tokens))
    calibrated = CalibratedRule(rule, found, level, trace.num_loops)
    return Calibration(calibrated, target, possible, _note(trace, target, loops, possible))


def _candidates(scores: Tensor) -> Candidates:
    """Return thresholds, ascending: one below all scores, some that divide the scores evenly, and infinity."""
    ends = torch.tensor([LAXEST, math.inf], dtype=torch.float64)
    finite = scores[scores.isfinite()].double()
    if not finite.numel():
        return ends[1:]
    ranks = torch.linspace(0, finite.numel() - 1, CANDIDATE_COUNT).round().long()
    return torch.cat([ends[:1], finite.sort().values[ranks].unique(), ends[1:]])


def _note(trace: ExitTrace, target: Target, loops: float, possible: bool) -> str:
    if not possible:
        return f"cannot meet {target}: its laxest threshold does not on {trace.windows} windows; runs at full depth"
    if trace.num_loops - loops < SMALLEST_SAVING * trace.num_loops:
        return f"meets {target} at full depth only: saves nothing on {trace.windows} windows"
    return f"keeps {target} with {loops:.2f} of {trace.num_loops} loops on {trace.windows} windows"


@dataclass(frozen=True)
class HaltingResult:
    """A calibrated rule on test windows. Loops count from 1; intervals are 95% bootstrap ones over windows.

    `selected_loops` is the mean exit over tokens; `executed_loops` what had to run for it: a window runs until its last
    token stops. `kept`: the target holds on these windows.
    """

    rule: CalibratedRule
    target: str
    possible: bool
    note: str
    relative_perplexity: Interval
    selected_loops: Interval
    executed_loops: Interval
    kept: bool
    windows: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {**asdict(self), "rule": self.rule.to_dict()}


def evaluate_halting(trace: ExitTrace, calibration: Calibration, seed: int = 0) -> HaltingResult:
    """Report what a calibrated rule does on a test trace."""
    rule = calibration.rule
    scores = trace.level_scores(rule.rule.name, rule.level)
    depths = select(scores, rule.threshold, trace.losses.shape[-1])
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
    )


def _intervals(trace: ExitTrace, depths: Depths, seed: int) -> Iterator[Interval]:
    """Yield relative perplexity, selected loops and executed loops."""
    weights = resampling_weights(trace.windows, seed)
    above = RelativePerplexity().measure(trace, depths)
    for sums, as_ratio in ((above, True), (trace.depth_sums(depths), False), (trace.executed_sums(depths), False)):
        value, samples = token_mean(sums, trace.tokens), resampled_means(sums, trace.tokens, weights)
        yield interval(float(value.exp()), samples.exp()) if as_ratio else interval(float(value), samples)
