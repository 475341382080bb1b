"""Cells of the study's tables: figures over the seeds of a condition, and what a cell is in words."""

from collections.abc import Callable, Sequence
from statistics import fmean

from loopscale.display import Column, mean_and_spread, number

from .results import Results, Run
from .topic import finite, interval_of_ratios

BETTER, WORSE, NOT_DECIDED = "better", "worse", "not decided"


def by_condition(results: Results, cells: Callable[[tuple[Run, ...]], list[str]]) -> tuple[tuple[str, ...], ...]:
    """Return a row per condition that has runs: its name, then its cells."""
    return tuple((name, *cells(condition.runs)) for name, condition in results.conditions.items() if condition.runs)


def columns_of_conditions(*headings: str) -> tuple[Column, ...]:
    """Return a column of conditions and then one of numbers for each heading."""
    return (Column("condition"), *(Column(heading, numeric=True) for heading in headings))


def over_seeds(runs: Sequence[Run], figure: Callable[[Run], float | None]) -> str:
    """Return mean and spread of a figure, a dash where no run has it."""
    values = [figure(run) for run in runs]
    return mean_and_spread([] if all(value is None for value in values) else values)


def ratio_over_seeds(values: Sequence[float]) -> str | None:
    """Return a ratio of perplexities, one per seed, with its interval and whether that decides; None without any."""
    around = interval_of_ratios(values)
    if around is None:
        return number(values[0]) if values else None
    low, high = around
    return f"{number(fmean(values))} [{number(low, 3)}, {number(high, 3)}] ({decided(values)})"


def decided(values: Sequence[float]) -> str | None:
    """Return what the interval of a ratio of perplexities over seeds decides, in words; None for one seed or none."""
    around = interval_of_ratios(values)
    if around is None:
        return None
    low, high = around
    return BETTER if high < 1 else WORSE if low > 1 else NOT_DECIDED


def mean_of(runs: Sequence[Run], figure: Callable[[Run], float | None]) -> float | None:
    """Return the mean of a figure over runs, None where one of them diverged, lacks it, or there are none."""
    values = [None if run.diverged else finite(figure(run)) for run in runs]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def agreed(words: Sequence[str]) -> str:
    """Return the word that all runs share, or each with its count."""
    counts = {word: words.count(word) for word in words}
    return ", ".join(word if len(counts) == 1 else f"{word} ({n} of {len(words)})" for word, n in counts.items())


def count_of(runs: tuple[Run, ...]) -> str:
    """Return how many runs there are, and how many of them diverged."""
    diverged = sum(run.diverged for run in runs)
    return f"{len(runs)} ({diverged} diverged)" if diverged else str(len(runs))


def seeds_said(results: Results) -> str:
    """Say what a cell is over the seeds."""
    return "Mean ± standard deviation over seeds." if len(results.seeds) > 1 else "One seed."
