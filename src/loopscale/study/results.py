"""Results: every run of a study with what was measured of it, and the claims judged by them.

The document `results.json` holds them (docs/results.md). A number that is not finite, of a diverged run, is `null`
there and NaN here.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, final

from loopscale.storage import REST

RESULTS_FILE = "results.json"

Outcome = Literal["holds", "does not hold", "undecided", "not tested here"]


@final
@dataclass(frozen=True)
class Failed:
    """A measurement that could not be made of a run, and why, in a sentence."""

    failed: str


@final
@dataclass(frozen=True)
class Run:
    """One trained model: one condition, one seed. All lists go by loop, the first loop first.

    `perplexity`, `cross_entropy` (nats per token) and `norm` (mean ||H_k||_2) have one value per trained
    loop; `perplexity_by_depth` and `norm_by_depth` go on past the trained depth. `tokens` is the number of
    evaluated tokens behind each of them, `checkpoint` a path relative to the results. `measured` holds a record per
    topic, by its name (see `Topic.of`), and what else the document has of the run.
    """

    seed: int
    perplexity: tuple[float, ...]
    cross_entropy: tuple[float, ...]
    norm: tuple[float, ...]
    perplexity_by_depth: tuple[float, ...]
    norm_by_depth: tuple[float, ...]
    steps: int
    train_seconds: float
    tokens: int
    parameters: int
    checkpoint: str
    measured: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def diverged(self) -> bool:
        """Whether training met what is not finite, or a loss or a norm within the trained depth is not."""
        return "diverged" in self.measured or not all(map(math.isfinite, (*self.cross_entropy, *self.norm)))

    @property
    def loss(self) -> float:
        """The cross-entropy of the last exit, by which runs are ranked; infinite where it diverged."""
        return math.inf if self.diverged else self.cross_entropy[-1]


@final
@dataclass(frozen=True)
class ConditionResult:
    """One condition of the grid: fields of the model's configuration, and its runs, one per seed."""

    model: Mapping[str, Any] = field(metadata=REST)
    runs: tuple[Run, ...]


@final
@dataclass(frozen=True)
class Judgement:
    """A claim with what was measured: `value` is the mean of `values`, which has one value per seed of `seeds`.

    `low` and `high` are the 95% interval of that mean by Student's t over seeds, of ratios in logarithms, and `noise`
    the sample deviation between seeds; None for one seed. `agree` counts the seeds that meet the threshold on their
    own. `published` is the paper's figure in words, None where the paper gives none.
    """

    id: str
    statement: str
    value: float | None
    low: float | None
    high: float | None
    noise: float | None
    unit: str
    threshold: str
    published: str | None
    verdict: Outcome
    n: int
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    agree: int
    note: str


@final
@dataclass(frozen=True)
class Results:
    """A whole study. `claims` follow from the runs (`judged`): reading a document leaves them out."""

    preset: str
    corpus: Mapping[str, Any]
    environment: Mapping[str, Any]
    config: Mapping[str, Any]
    num_loops: int
    conditions: Mapping[str, ConditionResult]
    claims: tuple[Judgement, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, metadata=REST)

    def runs(self, condition: str) -> tuple[Run, ...]:
        """Return the runs of `condition`; none where it was not trained."""
        return self.conditions[condition].runs if condition in self.conditions else ()

    def best_of(self, names: Iterable[str]) -> str:
        """Return the condition with the lowest loss, of several that differ in their learning rate.

        It is the mean over the seeds that all of them have, where there are such. One of which any run diverged, or
        that was not tried, comes last.
        """
        runs = {name: self.runs(name) for name in names}
        seeds = [{run.seed for run in own} for own in runs.values() if own]
        shared = set.intersection(*seeds) if seeds else set()

        def loss(name: str) -> float:
            if not runs[name] or any(run.diverged for run in runs[name]):
                return math.inf
            return fmean(run.loss for run in runs[name] if run.seed in shared or not shared)

        return min(runs, key=loss)

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """Return the runs of every condition, in order."""
        return tuple(run for condition in self.conditions.values() for run in condition.runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of all conditions, in order."""
        return tuple(sorted({run.seed for run in self.all_runs}))
