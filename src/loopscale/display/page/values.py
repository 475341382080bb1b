"""Values of a chart: for its hover, as a table for who cannot hover, and in a sentence for who cannot see it."""

import math
from typing import Any, Literal

from loopscale.display.chart import Axis, Chart, Panel
from loopscale.display.numbers import NOTHING, number
from loopscale.display.page.vector import sheets
from loopscale.display.scale import scale_of
from loopscale.display.table import Column, Table

NAMED = 6  # series that a sentence names


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return what a script needs to find a point under the pointer."""
    names = list(chart.legend)
    return {"names": names, "panels": [_panel_data(chart, panel, names) for panel in chart.panels]}


def values_table(chart: Chart) -> list[Table]:
    """Return the points of every panel as a table: across where they are compared at equal x, else one a row."""
    return [_across(panel) if panel.across else _one_by_one(panel) for panel in chart.panels]


def in_words(chart: Chart) -> str:
    """Return what the chart shows in a sentence per panel: its axes, and the last value of the first series."""
    return " ".join(map(_panel_words, chart.panels))


def _panel_data(chart: Chart, panel: Panel, names: list[str]) -> dict[str, Any]:
    boxes = {s.kind: [s.left, s.top, *s.inner, s.width, s.height] for s in sheets(chart, panel)}
    series = [
        {
            "name": names.index(s.name),
            "x": [_plain(x) if state == "drawn" else None for x, _, state in panel.points(s)],
            "y": [_plain(y) for y in s.y],
            "notes": list(s.notes),
        }
        for s in panel.series
    ]
    return {"across": panel.across, "x": _axis(panel, "x"), "y": _axis(panel, "y"), "boxes": boxes, "series": series}


def _axis(panel: Panel, kind: Literal["x", "y"]) -> dict[str, Any]:
    axis: Axis = getattr(panel, kind)
    scale = scale_of(panel, kind)
    facts = {"label": axis.label, "low": scale.low, "high": scale.high, "log": scale.log, "falling": scale.falling}
    return {**facts, "rows": bool(axis.names)}


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _across(panel: Panel) -> Table:
    places = sorted({x for series in panel.series for x in series.x})
    columns = (
        Column("series"),
        *(Column(f"{panel.x.label} {x:g}" if x == places[0] else f"{x:g}", True) for x in places),
    )
    rows = []
    for series in panel.series:
        known = dict(zip(series.x, series.y, strict=True))
        rows.append((series.name, *(number(known[x]) if x in known else NOTHING for x in places)))
    return Table("", panel.y.label, "", columns, tuple(rows))


def _one_by_one(panel: Panel) -> Table:
    named = bool(panel.y.names)
    columns = [Column("series"), Column("point"), Column(panel.x.label, True)]
    rows = []
    for series in panel.series:
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            note = series.notes[i] if i < len(series.notes) else NOTHING
            rows.append((series.name, note, number(x), *(() if named else (number(y),))))
    if not named:
        columns.append(Column(panel.y.label, True))
    return Table("", panel.y.label or panel.x.label, "", tuple(columns), tuple(dict.fromkeys(rows)))


def _panel_words(panel: Panel) -> str:
    names = list(dict.fromkeys(series.name for series in panel.series))
    what = f"{panel.x.label}, a row for each name" if panel.y.names else f"{panel.y.label} over {panel.x.label}"
    last = {s.name: f"{s.name} {number((s.x if panel.y.names else s.y)[-1])}" for s in panel.series if s.x}
    shown = ", ".join([last[name] for name in names if name in last][:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Chart of {what}. At the end: {shown}{more}."
