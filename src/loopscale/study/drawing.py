"""What a figure is: the style of all of them, and how they are written as PNG and SVG.

Colour says how the scale is controlled, line style says where the loss is applied, so that eight
conditions need five colours (Okabe and Ito's, told apart by colour-blind readers).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from .results import ConditionResult, Results
from .table import Section

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


@dataclass(frozen=True)
class Figure:
    """A figure that a report may show: `draw` returns the canvas, or None where the results lack its data."""

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Canvas | None]
    section: Section


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


def line_style(condition: ConditionResult) -> dict[str, Any]:
    """Return colour and dashes of a condition's line."""
    return {
        "color": COLOURS.get(control(condition), OTHER_COLOUR),
        "linestyle": DASHES.get(condition.supervision, "-"),
    }
