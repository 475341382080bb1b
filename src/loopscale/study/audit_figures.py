"""Figures of the audit: how far a state turns as it grows, and how norms spread over tokens."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from loopscale.audit.display import ANGULAR_AXES, draw_angular_steps

from .audit_tables import SPREAD
from .drawing import STYLE, line_style
from .extras import number_at, numbers_at
from .results import Results, Run

FIRST = "per_loop-rmsnorm"  # the guide starts at its first loop
MARKS = {"median": "o", "99th percentile": "|", "largest": "d"}


def angular_step(results: Results) -> Canvas | None:
    """Draw the angular step against the scale, 30 loops of every condition, means over seeds."""
    order = sorted(results.conditions, key=lambda name: name != FIRST)
    curves = {name: _means(results.runs(name)) for name in order}
    known = {name: curve for name, curve in curves.items() if curve[1]}
    if not known:
        return None
    looks = {name: {"markersize": 4, **line_style(results.conditions[name])} for name in known}
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(9.2, 4.8), layout="constrained")
        axes = canvas.add_subplot()
        draw_angular_steps(axes, known, looks)
        axes.set(xlabel=ANGULAR_AXES[0], ylabel=ANGULAR_AXES[1])
        axes.grid()
        canvas.legend(loc="outside right upper", frameon=False, handlelength=2.8, labelspacing=0.7)
    return canvas


def norm_spread(results: Results) -> Canvas | None:
    """Draw median, 99th percentile and largest norm over tokens after the last trained loop, one row per condition."""
    rows = {name: _quantiles(condition.runs) for name, condition in results.conditions.items()}
    rows = {name: values for name, values in rows.items() if values}
    if not rows:
        return None
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(9.2, 0.8 + 0.42 * len(rows)), layout="constrained")
        axes = canvas.add_subplot()
        for y, (name, values) in enumerate(rows.items()):
            colour = line_style(results.conditions[name])["color"]
            axes.plot([values[0], values[-1]], [y, y], color=colour, alpha=0.4)
            for (label, mark), value in zip(MARKS.items(), values, strict=True):
                looks: dict[str, Any] = {"marker": mark, "markersize": 7, "markeredgewidth": 1.5, "linestyle": ""}
                axes.plot(value, y, color=colour, label=label if y == 0 else None, **looks)
        axes.set(xscale="log", xlabel=rf"$\|H_{results.num_loops}\|_2$ over tokens (log scale)")
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.grid(axis="x")
        canvas.legend(loc="outside right upper", frameon=False)
    return canvas


def _means(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Return scale and angular step per loop, means over seeds, as far as all seeds go."""
    scales, steps = ([numbers_at(run, "audit", "curves", key) for run in runs] for key in ("scale", "angular_step"))
    loops = min(map(len, steps), default=0)
    return _mean(scales, loops), _mean(steps, loops)


def _mean(curves: Sequence[Sequence[float]], loops: int) -> list[float]:
    return np.mean([curve[:loops] for curve in curves], axis=0).tolist() if loops else []


def _quantiles(runs: Sequence[Run]) -> list[float]:
    read = [[number_at(run, "audit", "norms", len(run.norm) - 1, key) for run in runs] for key in SPREAD.values()]
    known = [[norm for norm in norms if norm is not None] for norms in read]
    return [fmean(norms) for norms in known] if runs and known == read else []
