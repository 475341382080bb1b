"""Plots: a chart as a matplotlib figure, for the files that papers and slides take."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopscale.display.chart import LIMIT, Axis, Chart, Panel, Reach, Series, remarks
from loopscale.display.figure import INK, draw_label, styled, write_figure
from loopscale.display.scale import Scale, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, ROW = 9.2, 4.8, 0.42  # inches
ENTRY, LETTER = 0.24, 0.09  # inches of a line of the legend, and of a letter of it
USUAL, LONGEST = 24, 60  # letters of a name that there is room for, and of one that is shown
WRAPPED = 110  # letters of a line below a figure


@styled
def plot(chart: Chart) -> "Figure":
    """Return the chart as a figure, its legend beside it and below it what could not be drawn."""
    from matplotlib.figure import Figure

    rows = max(len(panel.y.names) for panel in chart.panels)
    longest = max(map(len, chart.legend), default=0)
    width = WIDTH + LETTER * max(0, min(longest, LONGEST) - USUAL)
    height = 1.2 + ROW * rows if rows else max(HEIGHT, 0.5 + ENTRY * len(chart.legend))
    figure = Figure(figsize=(width, height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(chart.panels), squeeze=False)[0], chart.panels, strict=True):
        _draw(axes, panel)
    found = dict(pair[::-1] for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    if set(chart.legend) - {name for panel in chart.panels for name in panel.y.names} and len(found) > 1:
        handles = [found[draw_label(name)] for name in chart.legend]
        looks: dict[str, Any] = {"frameon": False, "handlelength": 2.8, "labelspacing": 0.7}
        figure.legend(handles, [_shown(name) for name in chart.legend], loc="outside right upper", **looks)
    if said := remarks(chart):
        figure.supxlabel(textwrap.fill(draw_label(said), WRAPPED), fontsize="x-small")
    return figure


def write_chart(chart: Chart, stem: Path) -> str:
    """Write `<stem>.png` and `<stem>.svg`, and return the SVG."""
    return write_figure(plot(chart), stem)


def _draw(axes: "Axes", panel: Panel) -> None:
    for kind, axis, scale in (("x", panel.x, scale_of(panel, "x")), ("y", panel.y, scale_of(panel, "y"))):
        _axis(axes, kind, axis, scale)
    axes.grid(axis="x" if panel.y.names else "y")
    for series in panel.series:
        _line(axes, panel, series)
        _ends(axes, panel, series)
    _around(axes, panel)


def _axis(axes: "Axes", kind: str, axis: Axis, scale: Scale) -> None:
    ends = (scale.high, scale.low) if scale.falling or (axis.names and kind == "y") else (scale.low, scale.high)
    axes.set(**{f"{kind}label": f"{axis.label} (log scale)" if axis.log else axis.label})
    axes.set(**{f"{kind}scale": "log" if axis.log else "linear"})
    ticks = axes.xaxis if kind == "x" else axes.yaxis
    ticks.set_ticks([value for value, _ in scale.ticks], [_shown(words).strip() for _, words in scale.ticks])
    ticks.set_ticks([], minor=True)
    axes.set(**{f"{kind}lim": ends})


def _line(axes: "Axes", panel: Panel, series: Series) -> None:
    """Draw the points and what joins them; a line to a point beyond the picture goes on to its edge."""
    points = list(panel.points(series))
    shown = [(x, y) if state == "drawn" else (math.nan, math.nan) for x, y, state in points]
    onward = [(_capped(x), _capped(y)) if state != "lost" else (math.nan, math.nan) for x, y, state in points]
    filled = [i for i, (_, _, state) in enumerate(points) if state == "drawn" and i not in series.hollow]
    looks: dict[str, Any] = {"color": series.style.colour, "marker": series.marker}
    line = "" if series.marks_only else series.style.dashes
    axes.plot(*_columns(onward), **looks, linestyle=line, markevery=filled, label=draw_label(series.name))
    hollow = [shown[i] for i in sorted(series.hollow)]
    axes.plot(*_columns(hollow), **looks, linestyle="", markerfacecolor="none", label="_hollow")
    if series.reach_y and not series.marks_only:
        low, high = zip(*(map(_capped, ends) for ends in series.reach_y), strict=True)
        axes.fill_between(series.x, low, high, color=series.style.colour, alpha=0.15, linewidth=0)
    else:
        for kind, reach in (("x", series.reach_x), ("y", series.reach_y)):
            if reach:
                arms: dict[str, Any] = {f"{kind}err": _arms(series.x if kind == "x" else series.y, reach)}
                axes.errorbar(series.x, series.y, fmt="none", ecolor=series.style.colour, capsize=2, **arms)
    for place, words in zip(shown, series.words, strict=False):
        if words and math.isfinite(place[0]):
            axes.annotate(draw_label(words), place, textcoords="offset points", xytext=(4, 4), fontsize=7)


def _ends(axes: "Axes", panel: Panel, series: Series) -> None:
    """Mark where a series leaves the picture by an arrow, and where it ends in no number by a cross."""
    looks: dict[str, Any] = {"color": series.style.colour, "linestyle": "", "label": "_end", "clip_on": False}
    for (x, y), mark in panel.ends(series):
        if mark == "lost":
            axes.plot(x, y, marker="x", ms=8, mew=2, **looks)
        elif panel.y.state(y) == "beyond":
            axes.plot(x, 0.99, transform=axes.get_xaxis_transform(), marker="^", **looks)
        else:
            axes.plot(0.99, y, transform=axes.get_yaxis_transform(), marker=">", **looks)


def _around(axes: "Axes", panel: Panel) -> None:
    """Draw zones and rules over the range that the series have."""
    x, y = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    for zone in panel.zones:
        across, up = _cut(zone.x, x), _cut(zone.y, y)
        axes.fill_between(across, up[0], up[1], color=INK, alpha=0.05, linewidth=0)
        axes.text(across[0], up[0], f" {draw_label(zone.words).strip()}", va="bottom", fontsize="small")
    for rule in panel.rules:
        looks: dict[str, Any] = {"color": INK, "linewidth": 1, "linestyle": ":", "label": "_rule"}
        if rule.axis == "x":
            axes.axvline(rule.value, **looks)
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text(rule.value, 1.01, draw_label(rule.words), **place)
        else:
            axes.axhline(rule.value, **looks)
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
            axes.text(1.0, rule.value, draw_label(rule.words), fontsize="small", **place)


def _shown(name: str) -> str:
    """Return a name as a label, the end of a long one left out."""
    return draw_label(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")


def _cut(ends: tuple[float, float], inside: Sequence[float]) -> tuple[float, float]:
    return max(ends[0], inside[0]), min(ends[1], inside[1])


def _capped(value: float) -> float:
    return max(-LIMIT, min(value, LIMIT))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _arms(values: Sequence[float], reach: Reach) -> list[list[float]]:
    pairs = list(zip(values, reach, strict=True))
    return [
        [max(value - low, 0.0) for value, (low, _) in pairs],
        [max(high - value, 0.0) for value, (_, high) in pairs],
    ]
