"""Display: the one table, figure style, number format and progress bar of every command and report."""

from loopscale.display.chart import Axis, Chart, Panel, Rule, Series, Zone, between, remarks
from loopscale.display.figure import (
    DASHED,
    GREY,
    Style,
    draw_label,
    fresh_styles,
    readable_top,
    styled,
    write_figure,
)
from loopscale.display.latex import to_latex
from loopscale.display.numbers import duration, fixed, mean_and_spread, number, percent, signed, sparkline, subscript
from loopscale.display.plotting import plot, write_chart
from loopscale.display.progress import Track, progress_bar, tracker, untracked
from loopscale.display.table import Column, Table, to_html, to_markdown, to_rich
from loopscale.display.terminal import console, inert_logs
from loopscale.display.text import file_name, in_markdown, inert, spelled

__all__ = [
    "DASHED",
    "GREY",
    "Axis",
    "Chart",
    "Column",
    "Panel",
    "Rule",
    "Series",
    "Style",
    "Table",
    "Track",
    "Zone",
    "between",
    "console",
    "draw_label",
    "duration",
    "file_name",
    "fixed",
    "fresh_styles",
    "in_markdown",
    "inert",
    "inert_logs",
    "mean_and_spread",
    "number",
    "percent",
    "plot",
    "progress_bar",
    "readable_top",
    "remarks",
    "signed",
    "sparkline",
    "spelled",
    "styled",
    "subscript",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_rich",
    "tracker",
    "untracked",
    "write_chart",
    "write_figure",
]
