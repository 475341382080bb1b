"""What a claim is: a statement, how it is measured, its threshold, and how they are judged.

`per_seed` makes a measure from a formula over the runs of one or more conditions that share a seed, so that
each seed gives one value. The verdict goes by the mean of these values; how many there are, and how many
meet the threshold alone, is kept beside it. No significance is claimed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from .results import Judgement, Results, Verdict

TIMES = "×"


@dataclass(frozen=True)
class Measured:
    """One value per seed; without a value, `note` says what is missing."""

    values: dict[int, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Threshold:
    """A bound in words and as a test."""

    words: str
    holds: Callable[[float], bool]


@dataclass(frozen=True)
class Claim:
    """A statement that a study can confirm or refute.

    `measure` returns one value per seed, none if the study lacks the data. `published` is the paper's
    figure in words, None for a claim that is ours alone. `remark` says where the claim is not expected to
    hold.
    """

    id: str
    statement: str
    measure: Callable[[Results], Measured]
    threshold: Threshold
    published: str | None
    unit: str = TIMES
    remark: str = ""

    def judge(self, results: Results) -> Judgement:
        """Measure and compare."""
        measured = self.measure(results)
        values = tuple(measured.values.values())
        value = fmean(values) if values else None
        return Judgement(
            id=self.id,
            statement=self.statement,
            value=value,
            unit=self.unit,
            threshold=self.threshold.words,
            published=self.published,
            verdict=self._verdict(value),
            n=len(values),
            values=values,
            seeds=tuple(measured.values),
            agree=sum(map(self.threshold.holds, values)),
            note=" ".join(filter(None, (measured.note, self.remark))),
        )

    def _verdict(self, value: float | None) -> Verdict:
        if value is None:
            return "not tested here"
        return "holds" if self.threshold.holds(value) else "does not hold"


def per_seed(formula: Callable[..., float | None], *conditions: str) -> Callable[[Results], Measured]:
    """Return the measure that applies `formula` to one run of each condition, for every seed they share.

    A formula returns None where a run lacks what it needs. One diverged run leaves the claim untested: a
    mean over the seeds that survived would flatter the condition.
    """

    def measure(results: Results) -> Measured:
        if missing := [name for name in conditions if not results.runs(name)]:
            return Measured(note=f"Needs {' and '.join(missing)}.")
        by_seed = [{run.seed: run for run in results.runs(name)} for name in conditions]
        seeds = sorted(set.intersection(*map(set, by_seed)))
        if not seeds:
            return Measured(note=f"{' and '.join(conditions)} have no seed in common.")
        for name, runs in zip(conditions, by_seed, strict=True):
            if diverged := [str(seed) for seed in seeds if runs[seed].diverged]:
                return Measured(note=f"{name} diverged with seed {', '.join(diverged)}.")
        values = {seed: formula(*(runs[seed] for runs in by_seed)) for seed in seeds}
        if lacking := [str(seed) for seed, value in values.items() if value is None]:
            return Measured(note=f"Not measured with seed {', '.join(lacking)}.")
        return Measured({seed: value for seed, value in values.items() if value is not None})

    return measure


def at_least(bound: float) -> Threshold:
    """Return the threshold value >= bound."""
    return Threshold(f"at least {bound:g}", lambda value: value >= bound)


def at_most(bound: float) -> Threshold:
    """Return the threshold value <= bound."""
    return Threshold(f"at most {bound:g}", lambda value: value <= bound)


def below(bound: float) -> Threshold:
    """Return the threshold value < bound."""
    return Threshold(f"below {bound:g}", lambda value: value < bound)


def above(bound: float) -> Threshold:
    """Return the threshold value > bound."""
    return Threshold(f"above {bound:g}", lambda value: value > bound)


def within(distance: float, of: float) -> Threshold:
    """Return the threshold |value - of| <= distance."""
    return Threshold(f"within {distance:g} of {of:g}", lambda value: abs(value - of) <= distance)


def ratio_of_perplexities(nats: float) -> float:
    """Return exp(nats), the ratio that a difference of losses stands for."""
    return math.exp(min(nats, 700.0))  # e^710 has no float64


def against(theirs: float, base: float, where: str = "129M") -> str:
    """Return a published ratio in words."""
    return f"{theirs / base:.3f}{TIMES}: {theirs} against {base} ({where})"
