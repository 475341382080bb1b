"""Reaching into what the measurements wrote of a run (`run.extra`); an older study lacks some of it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from .results import Run
from .summary import mean_and_spread


def found(run: Run, *path: str | int) -> Any:
    """Return what stands at a path of keys and indices in `run.extra`, None where there is nothing."""
    value: Any = run.extra
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def number_at(run: Run, *path: str | int) -> float | None:
    """Return the number at a path; None where there is none or it is not finite."""
    value = found(run, *path)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def at(*path: str | int) -> Callable[[Run], float | None]:
    """Return `number_at` of that path as a function of the run."""
    return lambda run: number_at(run, *path)


def numbers_at(run: Run, *path: str | int) -> list[float]:
    """Return the list of numbers at a path; empty where there is none or one of them is not finite."""
    values = found(run, *path)
    if not isinstance(values, list | tuple):
        return []
    numbers = [number_at(run, *path, i) for i in range(len(values))]
    return [] if None in numbers else [number for number in numbers if number is not None]


def over_seeds(runs: Sequence[Run], figure: Callable[[Run], float | None]) -> str:
    """Return mean and spread of a figure, a dash where no run has it."""
    values = [figure(run) for run in runs]
    if all(value is None for value in values):
        return "–"
    return mean_and_spread([math.nan if value is None else value for value in values])


def agreed(words: Sequence[str]) -> str:
    """Return the word that all runs share, or each with its count."""
    counts = {word: words.count(word) for word in words}
    return ", ".join(word if len(counts) == 1 else f"{word} ({n} of {len(words)})" for word, n in counts.items())
