"""Quality against cost, one line per condition."""

from statistics import fmean

import matplotlib
from matplotlib.figure import Figure as Canvas

from loopscale.evaluate import FrontierPoint
from loopscale.evaluate.figures import frontier_figure

from .drawing import STYLE, line_style
from .extras import number_at
from .results import ConditionResult, Results

READABLE = 1.5  # times the lowest perplexity; beyond, an exit is unusable and would flatten the others


def points(results: Results) -> list[FrontierPoint]:
    """Return every exit up to the trained depth as a point: means over seeds, where all of them were measured."""
    return [
        point
        for name, condition in results.conditions.items()
        for k in range(results.num_loops)
        if (point := _point(name, condition, k))
    ]


def frontier(results: Results) -> Canvas | None:
    """Draw perplexity against operations and throughput; exits far above the best are left out."""
    every = points(results)
    if not every:
        return None
    lowest = min(point.perplexity for point in every)
    shown = [point for point in every if point.perplexity <= READABLE * lowest]
    with matplotlib.rc_context(STYLE):
        return frontier_figure(shown, {name: line_style(c) for name, c in results.conditions.items()})


def _point(name: str, condition: ConditionResult, k: int) -> FrontierPoint | None:
    found = [
        [number_at(run, "depth", "trained", "exits", k, key) for key in ("perplexity", "flops", "tokens_per_second")]
        for run in condition.runs
    ]
    if not found or any(None in figures for figures in found):
        return None
    perplexity, flops, speed = (fmean(x for x in column if x is not None) for column in zip(*found, strict=True))
    return FrontierPoint(name, k + 1, perplexity, None, flops, 1 / speed)
