"""Claims: statements with a threshold, judged by what was measured.

A further claim is one more `Claim` in `CLAIMS`; nothing else needs to know it. `per_seed` makes its
measure from a formula over the runs of one or more conditions that share a seed, so that each seed gives
one value. The verdict goes by the mean of these values; how many there are, and how many meet the
threshold alone, is kept beside it. No significance is claimed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean

from . import published
from .results import Judgement, Results, Run, Verdict

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


def judged(results: Results) -> Results:
    """Return `results` with every claim judged by its runs."""
    return replace(results, claims=tuple(claim.judge(results) for claim in CLAIMS))


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


def final_norm(run: Run) -> float:
    """Return ||H_K||, the mean norm of the state after the last trained loop."""
    return run.norm[-1]


def norm_ratio(run: Run, other: Run) -> float | None:
    """Return how many times larger the final norm of `run` is; None where the other norm is zero."""
    return final_norm(run) / final_norm(other) if final_norm(other) else None


def growth_past_depth(run: Run) -> float | None:
    """Return the norm at the deepest loop measured over the norm at the trained depth."""
    return run.norm_by_depth[-1] / final_norm(run) if final_norm(run) else None


def final_perplexity_ratio(run: Run, other: Run) -> float:
    """Return the final perplexity of `run` over that of `other`, from the losses, which cannot overflow."""
    return _exp(run.cross_entropy[-1] - other.cross_entropy[-1])


def first_exit_ratio(run: Run) -> float:
    """Return the perplexity of exit 1 over that of the last exit, from the losses, which cannot overflow."""
    return _exp(run.cross_entropy[0] - run.cross_entropy[-1])


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))  # e^710 has no float64


_NORMS = ", ".join(f"{norm:,} ({size})" for size, norm in published.RMSNORM_FINAL_NORM.items())
_PENALTY_NORMS = "{} to {}".format(*published.PENALTY_FINAL_NORM)
_RMSNORM_EXITS = published.PERPLEXITY_129M["per_loop-rmsnorm"]


def _against(theirs: float, base: float) -> str:
    return f"{theirs / base:.3f}{TIMES}: {theirs} against {base} (129M)"


def _lower_perplexity(id: str, condition: str, what: str) -> Claim:
    theirs, base = published.PERPLEXITY_129M[condition][-1], _RMSNORM_EXITS[-1]
    return Claim(
        id=f"lower-perplexity-{id}",
        statement=f"{what} end at a lower perplexity than plain RMSNorm readouts at the same depth.",
        measure=per_seed(final_perplexity_ratio, condition, "per_loop-rmsnorm"),
        threshold=below(1.0),
        published=_against(theirs, base),
        remark="Published at 129M; a small model after a few hundred steps need not show it.",
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="norm-ratio-raw",
        statement="Behind RMSNorm the per-loop loss lets the norm run away: many times that of raw readouts.",
        measure=per_seed(norm_ratio, "per_loop-rmsnorm", "per_loop-raw"),
        threshold=at_least(10.0),
        published=f"{_NORMS} against {published.RAW_FINAL_NORM}",
    ),
    Claim(
        id="norm-ratio-penalty",
        statement="A penalty that sees the scale controls it: without one the norm is many times larger.",
        measure=per_seed(norm_ratio, "per_loop-rmsnorm", "per_loop-rmsnorm-penalty"),
        threshold=at_least(10.0),
        published=f"{_NORMS} against {_PENALTY_NORMS}",
    ),
    Claim(
        id="penalty-bounds-norm",
        statement="The norm penalty keeps the final norm bounded.",
        measure=per_seed(final_norm, "per_loop-rmsnorm-penalty"),
        threshold=below(100.0),
        published=_PENALTY_NORMS,
        unit="",
    ),
    Claim(
        id="terminal-exit1-unusable",
        statement="Terminal cross-entropy leaves exit 1 unusable: many times the last exit's perplexity.",
        measure=per_seed(first_exit_ratio, "terminal-rmsnorm"),
        threshold=at_least(10.0),
        published="stated in the paper",
    ),
    Claim(
        id="per_loop-exit1-usable",
        statement="Per-loop cross-entropy trains the exits: exit 1 comes close to the last one's perplexity.",
        measure=per_seed(first_exit_ratio, "per_loop-rmsnorm"),
        threshold=at_most(1.25),
        published=_against(_RMSNORM_EXITS[0], _RMSNORM_EXITS[-1]),
    ),
    _lower_perplexity("raw", "per_loop-raw", "Raw readouts"),
    _lower_perplexity("final_rmsnorm", "per_loop-final_rmsnorm", "Raw readouts with a normalised last exit"),
    _lower_perplexity("penalty", "per_loop-rmsnorm-penalty", "RMSNorm readouts with a norm penalty"),
    Claim(
        id="inter-loop-norm",
        statement="An inter-loop norm takes scale out of the loop: past the trained depth the norm no longer grows.",
        measure=per_seed(growth_past_depth, "per_loop-rmsnorm-normed"),
        threshold=at_most(1.1),
        published=None,
    ),
)
