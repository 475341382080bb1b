"""Topics: a subject of the study with what it measures of a run, its claims, tables, figures and sentence.

A topic is one module and its line in `TOPICS`, so that what is written and what reads it stand side by side.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Generic, TypeVar, final

from torch import Tensor

from loopscale.data import Data, batches
from loopscale.display import Chart, Table
from loopscale.errors import InputError
from loopscale.evaluate.statistics import interval_over_seeds
from loopscale.model import LoopedForCausalLM

from .results import Failed, Judgement, Outcome, Results, Run

TIMES = "×"
SEED_NOISE = 1.25  # one seed: a ratio of losses within this factor of a threshold decides nothing

Record = TypeVar("Record")


@final
@dataclass(frozen=True)
class Measured:
    """One value per seed; without a value, `note` says what is missing."""

    values: dict[int, float] = field(default_factory=dict)
    note: str = ""


@final
@dataclass(frozen=True)
class Threshold:
    """A bound in words and as a test, met by one unbroken range of values around `best`."""

    words: str
    holds: Callable[[float], bool]
    best: float

    def over(self, low: float, high: float) -> set[bool]:
        """Return what the values from `low` to `high` answer: all alike, or both."""
        return {self.holds(value) for value in (low, high, min(max(self.best, low), high))}


@final
@dataclass(frozen=True)
class Claim:
    """A statement that a study can confirm or refute.

    `measure` returns one value per seed, none if the study lacks the data. `published` is the paper's
    figure in words, None for a claim that is ours alone. `remark` says where the claim is not expected to
    hold. `trained_apart`: it compares the losses of models that were trained apart, which differ between seeds, so that
    one seed decides only what lies far from the threshold.
    """

    id: str
    statement: str
    measure: Callable[[Results], Measured]
    threshold: Threshold
    published: str | None
    unit: str = TIMES
    remark: str = ""
    trained_apart: bool = False

    def judge(self, results: Results) -> Judgement:
        """Measure, and compare the interval over seeds; how many meet the threshold alone is kept beside it."""
        measured = self.measure(results)
        values = tuple(measured.values.values())
        value, around = fmean(values) if values else None, self._interval(values)
        return Judgement(
            id=self.id,
            statement=self.statement,
            value=value,
            low=around[0] if around else None,
            high=around[1] if around else None,
            noise=stdev(values) if around else None,
            unit=self.unit,
            threshold=self.threshold.words,
            published=self.published,
            verdict=self._verdict(value, around),
            n=len(values),
            values=values,
            seeds=tuple(measured.values),
            agree=sum(map(self.threshold.holds, values)),
            note=" ".join(filter(None, (measured.note, self.remark))),
        )

    def _interval(self, values: Sequence[float]) -> tuple[float, float] | None:
        if self.unit == TIMES and values and min(values) > 0:
            return interval_of_ratios(values)
        found = interval_over_seeds(values)
        return None if found is None else (found.low, found.high)

    def _verdict(self, value: float | None, around: tuple[float, float] | None) -> Outcome:
        if value is None:
            return "not tested here"
        apart = SEED_NOISE if self.trained_apart else 1.0
        met = self.threshold.over(*around or (value / apart, value * apart))
        return "undecided" if len(met) > 1 else "holds" if met.pop() else "does not hold"


@final
@dataclass(frozen=True)
class Drawing:
    """A figure of the report: `draw` returns what it shows, or None where the results lack its data."""

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Chart | None]


@final
@dataclass(frozen=True)
class Topic(Generic[Record]):
    """One subject of the report.

    `name` is the key of its record in results.json, `record` the type that is written and read there, `measure` makes
    one of a trained model. `place` orders the page, lowest first; topics of one `heading` stand together. `sentence` is
    what the results say of it, in one.
    """

    name: str
    heading: str
    place: int
    record: Any = None
    measure: Callable[[LoopedForCausalLM, Data], Record] | None = None
    claims: tuple[Claim, ...] = ()
    tables: tuple[Callable[[Results], Table | None], ...] = ()
    figures: tuple[Drawing, ...] = ()
    sentence: Callable[[Results], str | None] | None = None

    def of(self, run: Run) -> Record | None:
        """Return the run's record; None where it has none, or the measurement failed."""
        record: Record | Failed | None = run.measured.get(self.name)
        return None if isinstance(record, Failed) else record

    def measured(self, model: LoopedForCausalLM, data: Data) -> Record | Failed | None:
        """Return the record of a trained model, or why there is none: of a run that diverged, say."""
        try:
            return None if self.measure is None else self.measure(model, data)
        except InputError as error:
            return Failed(str(error))


def valid_batches(model: LoopedForCausalLM, data: Data, size: int, limit: int) -> Iterator[Tensor]:
    """Yield so many batches of windows, (size, seq + 1), spread over the valid split, on the model's device."""
    return (batch.to(model.device) for batch in batches(data.valid, size, limit))


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
        values = {seed: finite(formula(*(runs[seed] for runs in by_seed))) for seed in seeds}
        if lacking := [str(seed) for seed, value in values.items() if value is None]:
            return Measured(note=f"Not measured with seed {', '.join(lacking)}.")
        return Measured({seed: value for seed, value in values.items() if value is not None})

    return measure


def at_least(bound: float) -> Threshold:
    """Return the threshold value >= bound."""
    return Threshold(f"at least {bound:g}", lambda value: value >= bound, math.inf)


def at_most(bound: float) -> Threshold:
    """Return the threshold value <= bound."""
    return Threshold(f"at most {bound:g}", lambda value: value <= bound, -math.inf)


def below(bound: float) -> Threshold:
    """Return the threshold value < bound."""
    return Threshold(f"below {bound:g}", lambda value: value < bound, -math.inf)


def above(bound: float) -> Threshold:
    """Return the threshold value > bound."""
    return Threshold(f"above {bound:g}", lambda value: value > bound, math.inf)


def within(distance: float, of: float) -> Threshold:
    """Return the threshold |value - of| <= distance."""
    return Threshold(f"within {distance:g} of {of:g}", lambda value: abs(value - of) <= distance, of)


def finite(value: float | None) -> float | None:
    """Return a number that can be compared, None for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def ratio_of_perplexities(nats: float) -> float:
    """Return exp(nats), the ratio that a difference of losses stands for."""
    return math.exp(min(nats, 700.0))  # e^710 has no float64


def interval_of_ratios(values: Sequence[float]) -> tuple[float, float] | None:
    """Return where the mean of positive ratios lies, by their logarithms; None for one alone."""
    found = interval_over_seeds([math.log(value) for value in values])
    return None if found is None else (ratio_of_perplexities(found.low), ratio_of_perplexities(found.high))


def against(theirs: float, base: float, where: str = "129M") -> str:
    """Return a published ratio in words."""
    return f"{theirs / base:.3f}{TIMES}: {theirs} against {base} ({where})"
