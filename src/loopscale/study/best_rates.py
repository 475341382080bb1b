"""Best rates: of a study that trained conditions at several learning rates, each condition at the best of its own.

A name like `per_loop-raw@0.003` is a condition at a rate of its own; the plain name is at the rate of the study.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps

from loopscale.display import Table

from .grid import split_rate
from .results import Results

AT_BEST_RATES = "Each condition is at the best of its learning rates."


def usual_rate(results: Results) -> float:
    """Return the learning rate of the study; 0 where its document has none."""
    return float(results.config.get("train", {}).get("learning_rate") or 0)


def names_by_condition(results: Results) -> dict[str, list[str]]:
    """Return the conditions that have runs, with the names that each has at its rates."""
    found: dict[str, list[str]] = {}
    for name, condition in results.conditions.items():
        if condition.runs:
            found.setdefault(split_rate(name)[0], []).append(name)
    return found


def best_names(results: Results) -> dict[str, str]:
    """Return what the best rate of every condition is called."""
    return {condition: results.best_of(names) for condition, names in names_by_condition(results).items()}


def at_best(results: Results) -> Results:
    """Return the study with every condition under its plain name, at the best of its rates."""
    best = best_names(results).items()
    return replace(results, conditions={condition: results.conditions[name] for condition, name in best})


def searched(results: Results) -> bool:
    """Whether any condition was trained at rates of its own alone."""
    return any(condition not in names for condition, names in names_by_condition(results).items())


def by_name(results: Results) -> Results:
    """Return the study as what asks for conditions by their plain names sees it: claims, and some tables and sentences.

    At the rate of the study where all conditions have it; otherwise each at its best, so that a searched rate is never
    held against one that was not searched.
    """
    return at_best(results) if searched(results) else results


def sentence_by_name(sentence: Callable[[Results], str | None]) -> Callable[[Results], str | None]:
    """Return a sentence that asks for conditions by their plain names, and says where they are at their best rates."""

    @wraps(sentence)
    def said(results: Results) -> str | None:
        found = sentence(by_name(results))
        return f"{found} ({AT_BEST_RATES})" if found and searched(results) else found

    return said


def table_by_name(build: Callable[[Results], Table | None]) -> Callable[[Results], Table | None]:
    """Return a table that asks for conditions by their plain names, and says where they are at their best rates."""

    @wraps(build)
    def built(results: Results) -> Table | None:
        found = build(by_name(results))
        return replace(found, caption=f"{found.caption} {AT_BEST_RATES}") if found and searched(results) else found

    return built
