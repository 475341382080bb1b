"""Drawing of curves of every condition: over the loops, past the trained depth too, and over training."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from loopscale.display import Axis, Chart, Panel, Rule, Series, Zone, between, readable_top

from .grid import condition_styles
from .results import Results, Run

LINES = "Solid: loss at every loop; dashed: at the last loop only."


def by_depth(
    results: Results, curve: Callable[[Run], Sequence[float]], label: str, log_from: float, far: float
) -> Chart | None:
    """Draw `curve` of every run over the loops: the mean over seeds, with a band from least to greatest.

    The value axis is logarithmic where the largest value is `log_from` times the smallest or more. What is `far` times
    above the best of the others leaves the picture.
    """
    curves = {name: [curve(run) for run in c.runs] for name, c in results.conditions.items()}
    loops = max((len(values) for runs in curves.values() for values in runs), default=0)
    if not loops:
        return None
    places = range(1, loops + 1)
    end = readable_top([values for runs in curves.values() for values in runs], far)
    series = mean_series(results, {n: [dict(zip(places, c, strict=False)) for c in runs] for n, runs in curves.items()})
    axis = Axis(label, log=_wide([s.y for s in series], end, log_from), end=end)
    trained = results.num_loops
    past = (Zone(x=(trained, math.inf)),) if loops > trained else ()
    rule = Rule("x", trained, f"trained depth {trained}")
    return Chart((Panel(Axis("loop k", whole=True), axis, series, (rule,), past, across=True),))


def over_training(
    results: Results, curve: Callable[[Run], Mapping[int, float]], label: str, far: float
) -> Chart | None:
    """Draw `curve` of every run, by step, over training: means over seeds, with a band from least to greatest."""
    curves = {name: [curve(run) for run in c.runs] for name, c in results.conditions.items()}
    series = mean_series(results, {name: _at_shared_steps(runs) for name, runs in curves.items() if runs and all(runs)})
    if not series:
        return None
    end = readable_top([s.y for s in series], far)
    return Chart((Panel(Axis("training step", whole=True), Axis(label, log=True, end=end), series, across=True),))


def mean_series(results: Results, curves: Mapping[str, Sequence[Mapping[int, float]]]) -> tuple[Series, ...]:
    """Return a series per condition of one curve per seed: means where all seeds have a value, the highest end first.

    A mean over the seeds that are finite would mislead: where one is not, neither is the mean.
    """
    styles = condition_styles(results)
    found = []
    for name, runs in curves.items():
        places = sorted({x for run in runs for x in run})
        if not places:
            continue
        rows = [[run.get(x, math.nan) for x in places] for run in runs]
        means = tuple(
            fmean(column) if all(map(math.isfinite, column)) else math.nan for column in zip(*rows, strict=True)
        )
        found.append(Series(name, tuple(map(float, places)), means, styles[name], reach_y=between(rows)))
    return tuple(sorted(found, key=_last, reverse=True))


def _at_shared_steps(runs: Sequence[Mapping[int, float]]) -> list[Mapping[int, float]]:
    """Return the curves at the steps that all of them have: machines may log at others."""
    shared = set.intersection(*map(set, runs))
    return [{step: value for step, value in run.items() if step in shared} for run in runs]


def _last(series: Series) -> float:
    """Return the value at the last place with one, so that the legend runs from the top line down."""
    return next((y for y in reversed(series.y) if math.isfinite(y)), math.inf)


def _wide(curves: Sequence[Sequence[float]], end: float, factor: float) -> bool:
    values = [y for curve in curves for y in curve if math.isfinite(y) and y <= end]
    return bool(values and min(values) > 0 and max(values) >= factor * min(values))
