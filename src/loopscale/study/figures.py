"""Figures: curves over depth, one line per condition, drawn with matplotlib and written as PNG and SVG.

Colour says how the scale is controlled, line style says where the loss is applied, so that eight
conditions need five colours (Okabe and Ito's, told apart by colour-blind readers). A further figure is one
more `Figure` in `FIGURES`; its `draw` returns None where the results lack its data.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .results import ConditionResult, Results, Run

INK = "#24292f"
STYLE = {
    "figure.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "loopscale",
}
COLOURS = {
    "rmsnorm": "#D55E00",
    "raw": "#0072B2",
    "final_rmsnorm": "#56B4E9",
    "penalty": "#009E73",
    "inter-loop norm": "#CC79A7",
}
OTHER_COLOUR = "#999999"
DASHES = {"per_loop": "-", "terminal": (0, (4, 2)), "exit_gate": (0, (1, 1.5))}
DRAWABLE = 1e100  # beyond, the margins of a log axis overflow
FEW_DECADES = 200.0  # up to this range a log axis has room for 1, 2, 5


@dataclass(frozen=True)
class Figure:
    """A figure that a report may show: `draw` returns the canvas, or None where the results lack its data."""

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Canvas | None]


def by_depth(results: Results, curve: Callable[[Run], Sequence[float]], label: str, log_from: float) -> Canvas | None:
    """Draw `curve` of every run over the loops: the mean over seeds, with a band from least to greatest.

    The value axis is logarithmic where the largest value is `log_from` times the smallest or more. A curve
    breaks off with a cross where one seed is not finite (a mean over the others would mislead) or too large
    to draw, and the legend says at how many loops.
    """
    measured = {name: [curve(run) for run in c.runs] for name, c in results.conditions.items()}
    curves = {name: _curves(runs) for name, runs in measured.items() if any(map(len, runs))}
    if not curves:
        return None
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(9.2, 4.8), layout="constrained")
        axes = canvas.add_subplot()
        for name in sorted(curves, key=lambda name: _height(curves[name]), reverse=True):
            _line(axes, name, results.conditions[name], curves[name])
        _depth_axis(axes, results.num_loops, max(values.shape[1] for values in curves.values()))
        _value_axis(axes, label, _wide(curves.values(), log_from))
        canvas.legend(loc="outside right upper", frameon=False, handlelength=2.8, labelspacing=0.7)
    return canvas


FIGURES: tuple[Figure, ...] = (
    Figure(
        name="norm-by-depth",
        title="The norm of the state, loop by loop",
        caption="Mean ‖H_k‖ over the validation tokens, run on to three times the trained depth.",
        draw=partial(by_depth, curve=lambda run: run.norm_by_depth, label=r"mean $\|H_k\|_2$", log_from=1.0),
    ),
    Figure(
        name="perplexity-by-depth",
        title="Perplexity at every exit",
        caption="Perplexity of the validation split, decoded after loop k, past the trained depth as well.",
        draw=partial(by_depth, curve=lambda run: run.perplexity_by_depth, label="perplexity", log_from=5.0),
    ),
)


def write(canvas: Canvas, stem: Path) -> str:
    """Write `<stem>.png` and `<stem>.svg`, and return the SVG; equal data gives equal bytes."""
    svg = to_svg(canvas)
    stem.with_suffix(".svg").write_text(svg, encoding="utf-8")
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(canvas).print_png(stem.with_suffix(".png"))
    return svg


def to_svg(canvas: Canvas) -> str:
    """Return the figure as an SVG document without a background of its own."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def control(condition: ConditionResult) -> str:
    """Name what controls a condition's scale: the norm between loops, the penalty, or the readout alone."""
    if condition.recurrence == "rmsnorm":
        return "inter-loop norm"
    return "penalty" if condition.norm_penalty_coef > 0 else condition.readout


def _curves(curves: list[Sequence[float]]) -> np.ndarray:
    """Return (seeds, loops), NaN at every loop that one seed lacks or that cannot be drawn."""
    values = np.full((len(curves), max(map(len, curves))), math.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    lost = ~(np.abs(values) <= DRAWABLE).all(axis=0)
    values[:, lost] = math.nan
    return values


def _line(axes: Axes, name: str, condition: ConditionResult, values: np.ndarray) -> None:
    loops, mean, lost = np.arange(1, values.shape[1] + 1), values.mean(axis=0), np.isnan(values[0])
    colour = COLOURS.get(control(condition), OTHER_COLOUR)
    label = f"{name}\n(off the scale at {lost.sum()} of {lost.size} loops)" if lost.any() else name
    axes.plot(loops, mean, color=colour, linestyle=DASHES.get(condition.supervision, "-"), label=label)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(loops, low, high, color=colour, alpha=0.15, linewidth=0)
    ends = (np.convolve(lost, (1, 1, 1))[1:-1] > 0) & ~lost  # drawn loops beside a lost one
    if ends.any():
        axes.plot(loops[ends], mean[ends], color=colour, linestyle="", marker="x", ms=8, mew=2)


def _depth_axis(axes: Axes, trained: int, measured: int) -> None:
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


def _value_axis(axes: Axes, label: str, log: bool) -> None:
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
