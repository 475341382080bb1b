"""Drawing of curves over the loops, one line per condition, past the trained depth too."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopscale.display import Style, draw_label, readable_top, styled
from loopscale.display.figure import INK

from .grid import condition_styles
from .results import Results, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWABLE = 1e100  # beyond, the margins of a log axis overflow
LINES = "Solid: loss at every loop; dashed: at the last loop only."
FEW_DECADES = 200.0  # up to this range a log axis has room for 1, 2, 5


@styled
def by_depth(
    results: Results, curve: Callable[[Run], Sequence[float]], label: str, log_from: float, far: float
) -> "Figure | None":
    """Draw `curve` of every run over the loops: the mean over seeds, with a band from least to greatest.

    The value axis is logarithmic where the largest value is `log_from` times the smallest or more. A curve
    breaks off with a cross where one seed is not finite (a mean over the others would mislead) or `far` times above
    the best of the others, and the legend says at how many loops.
    """
    from matplotlib.figure import Figure

    measured = {name: [curve(run) for run in c.runs] for name, c in results.conditions.items()}
    top = min(readable_top([values for runs in measured.values() for values in runs], far), DRAWABLE)
    curves = {name: _curves(runs, top) for name, runs in measured.items() if any(map(len, runs))}
    if not curves:
        return None
    styles = condition_styles(results)
    figure = Figure(figsize=(9.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for name in sorted(curves, key=lambda name: _height(curves[name]), reverse=True):
        _line(axes, name, styles[name], curves[name])
    _depth_axis(axes, results.num_loops, max(values.shape[1] for values in curves.values()))
    _value_axis(axes, label, _wide(curves.values(), log_from))
    figure.legend(loc="outside right upper", frameon=False, handlelength=2.8, labelspacing=0.7)
    return figure


def _curves(curves: list[Sequence[float]], top: float) -> np.ndarray:
    """Return (seeds, loops), NaN at every loop that one seed lacks or that cannot be drawn."""
    values = np.full((len(curves), max(map(len, curves))), math.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    lost = ~(np.isfinite(values) & (np.abs(values) <= top)).all(axis=0)
    values[:, lost] = math.nan
    return values


def _line(axes: "Axes", name: str, style: Style, values: np.ndarray) -> None:
    loops, mean, lost = np.arange(1, values.shape[1] + 1), values.mean(axis=0), np.isnan(values[0])
    colour, shown = style.colour, draw_label(name)
    label = f"{shown}\n(off the scale at {lost.sum()} of {lost.size} loops)" if lost.any() else shown
    axes.plot(loops, mean, label=label, **style.line)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(loops, low, high, color=colour, alpha=0.15, linewidth=0)
    ends = (np.convolve(lost, (1, 1, 1))[1:-1] > 0) & ~lost  # drawn loops beside a lost one
    if ends.any():
        axes.plot(loops[ends], mean[ends], color=colour, linestyle="", marker="x", ms=8, mew=2)


def _depth_axis(axes: "Axes", trained: int, measured: int) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = max(trained, measured)
    axes.set_xlim(0.8, shown + 0.2)
    axes.set_xlabel("loop k")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13, min_n_ticks=1))
    axes.axvline(trained, color=INK, linewidth=1, linestyle=":")
    axes.text(
        trained,
        1.01,
        f"trained depth {trained}",
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="bottom",
    )
    if shown > trained:
        axes.axvspan(trained, shown + 0.2, color=INK, alpha=0.04, linewidth=0)


def _value_axis(axes: "Axes", label: str, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_ylabel(f"{label} (log scale)" if log else label)
    axes.grid(axis="y")
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_DECADES * low else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None) -> str:
    return f"{value:,.0f}" if 10 <= value < 1e6 else f"{value:g}"


def _height(values: np.ndarray) -> float:
    """Return the value at the last loop drawn, so that the legend runs from the top line down."""
    drawn = values.mean(axis=0)[~np.isnan(values[0])]
    return float(drawn[-1]) if drawn.size else math.inf


def _wide(curves: Iterable[np.ndarray], factor: float) -> bool:
    values = np.concatenate([known[~np.isnan(known)] for known in curves])
    return bool(values.size and values.min() > 0 and values.max() >= factor * values.min())
