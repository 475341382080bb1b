"""Drawing of a chart as SVG, once for a wide screen and paper and once for a narrow screen: readable without a script.

Colours are those of the page, so that it is readable in the dark; a series has its own as its current colour.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from loopscale.display.chart import LIMIT, Chart, Panel, Series
from loopscale.display.page.symbols import symbol
from loopscale.display.scale import Scale, scale_of
from loopscale.display.text import inert

LETTER, LINE = 6.6, 15.0  # pixels of a letter's width, and from line to line
ROW = {"wide": 26, "narrow": 40}
POINT = 3.4  # half the size of a mark


@final
@dataclass(frozen=True)
class Sheet:
    """A drawing's size, and the box within it that the axes span, in pixels."""

    kind: str
    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def inner(self) -> tuple[float, float]:
        """Width and height of the box."""
        return self.width - self.left - self.right, self.height - self.top - self.bottom


def sheets(chart: Chart, panel: Panel) -> tuple[Sheet, ...]:
    """Return the sheets of a panel: wide, which panels share between them, and narrow."""
    return tuple(_sheet(kind, len(chart.panels), panel) for kind in ("wide", "narrow"))


def drawn(chart: Chart) -> Markup:
    """Return every panel of a chart as SVG elements; the page shows those of one kind."""
    names = {name: place for place, name in enumerate(chart.legend)}
    found = []
    for panel in chart.panels:
        both = "".join(tostring(_svg(panel, sheet, names), encoding="unicode") for sheet in sheets(chart, panel))
        found.append(f'<div class="panel">{both}</div>')
    return Markup("".join(found))


def swatch(series: Series) -> Markup:
    """Return a series' line and mark as its legend shows them."""
    svg = Element(
        "svg", {"class": "swatch", "viewBox": "0 0 26 12", "color": series.style.colour, "aria-hidden": "true"}
    )
    if not series.marks_only:
        _add(svg, "path", "line", d="M1 6L25 6", **_dashes(series))
    if series.marker or series.marks_only:
        _add(svg, "path", "mark", d=symbol(series.marker or "o", 13, 6, POINT))
    return Markup(tostring(svg, encoding="unicode"))


def _sheet(kind: str, panels: int, panel: Panel) -> Sheet:
    rows, narrow = len(panel.y.names), kind == "narrow"
    width = 350 if narrow else 940 if panels == 1 else 470
    height = 76 + ROW[kind] * rows if rows else 290 if narrow else 390 if panels == 1 else 340
    longest = max((len(words) for _, words in scale_of(panel, "y").ticks), default=1)
    left = 10.0 if rows and narrow else min(14 + LETTER * longest, 0.45 * width)
    top = 38 if panel.y.label or any(rule.axis == "x" and rule.words for rule in panel.rules) else 14
    below = LINE * max(0, len(_lines(panel, width)) - 1)
    return Sheet(kind, width, height - 38 + top + below, left, top, 14, 40 + below)


def _svg(panel: Panel, sheet: Sheet, names: dict[str, int]) -> Element:
    size = {"viewBox": f"0 0 {sheet.width:g} {sheet.height:g}"}
    svg = Element("svg", {"class": f"drawing {sheet.kind}", "aria-hidden": "true", **size})
    x = scale_of(panel, "x", 9 if sheet.inner[0] > 500 else 5)
    y = scale_of(panel, "y", 7)
    _axes(svg, panel, sheet, x, y)
    width, height = sheet.inner
    place = {"x": f"{sheet.left:g}", "y": f"{sheet.top:g}", "width": f"{width:g}", "height": f"{height:g}"}
    box = SubElement(svg, "svg", place)
    for zone in panel.zones:
        left, right = (_clamped(x.at(v) if math.isfinite(v) else v > 0) * width for v in zone.x)
        low, high = (_clamped(y.at(v) if math.isfinite(v) else v > 0) * height for v in zone.y)
        _add(box, "rect", "zone", x=left, y=height - high, width=right - left, height=high - low)
        _text(box, "words", left + 6, height - low - 8, zone.words)
    for rule in panel.rules:
        at = x.at(rule.value) * width if rule.axis == "x" else height - y.at(rule.value) * height
        ends = (
            {"x1": at, "x2": at, "y1": 0, "y2": height}
            if rule.axis == "x"
            else {"x1": 0, "x2": width, "y1": at, "y2": at}
        )
        _add(box, "line", "rule", **ends)
        if rule.axis == "y":
            _text(box, "words", width - 4, at - 5, rule.words, anchor="end")
    for series in panel.series:
        _series(box, panel, series, names[series.name], _Places(x, y, width, height, bool(panel.y.names)))
    return svg


@final
@dataclass(frozen=True)
class _Places:
    """From values to pixels within the box; rows go down."""

    x: Scale
    y: Scale
    width: float
    height: float
    down: bool

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        across, up = self.x.at(_capped(x)) * self.width, self.y.at(_capped(y)) * self.height
        return across, up if self.down else self.height - up


def _axes(svg: Element, panel: Panel, sheet: Sheet, x: Scale, y: Scale) -> None:
    width, height = sheet.inner
    right, bottom = sheet.left + width, sheet.top + height
    for value, words in y.ticks:
        share = y.at(value)
        at = sheet.top + (share if panel.y.names else 1 - share) * height
        if panel.y.names and sheet.kind == "narrow":
            _text(svg, "tick", sheet.left, at - 11, words)
        else:
            kept = words if len(words) * LETTER <= sheet.left else f"{words[: int(sheet.left / LETTER) - 2]}…"
            _text(svg, "tick", sheet.left - 7, at + 4, kept, anchor="end")
        if not panel.y.names:
            _add(svg, "line", "grid", x1=sheet.left, x2=right, y1=at, y2=at)
    for value, words in x.ticks:
        at = sheet.left + x.at(value) * width
        if panel.y.names:
            _add(svg, "line", "grid", x1=at, x2=at, y1=sheet.top, y2=bottom)
        _text(svg, "tick", at, bottom + 17, words, anchor="middle")
    _add(svg, "line", "axis", x1=sheet.left, x2=right, y1=bottom, y2=bottom)
    for i, words in enumerate(_lines(panel, sheet.width)):
        _text(svg, "label", right, bottom + 34 + LINE * i, words, anchor="end")
    _text(svg, "label", 2, 13, _said(panel.y.label, panel.y.log))
    for rule in panel.rules:
        if rule.axis == "x":
            share = x.at(rule.value)
            anchor = "start" if share < 0.2 else "end" if share > 0.8 else "middle"
            _text(svg, "words", sheet.left + share * width, sheet.top - 6, rule.words, anchor=anchor)


def _lines(panel: Panel, width: float) -> list[str]:
    """Return the label below, in as many lines as the sheet needs."""
    return textwrap.wrap(_said(panel.x.label, panel.x.log), int((width - 20) / LETTER))


def _said(label: str, log: bool) -> str:
    return f"{label}, log scale" if label and log else label


def _series(box: Element, panel: Panel, series: Series, name: int, places: _Places) -> None:
    group = SubElement(box, "g", {"class": "series", "data-name": str(name), "color": series.style.colour})
    points = [(places(x, y) if state != "lost" else None, state) for x, y, state in panel.points(series)]
    if not series.marks_only:
        if series.reach_y:
            _band(group, panel, series, places)
        _add(group, "path", "line", d=_joined([point for point, _ in points]), **_dashes(series))
    else:
        _reach(group, panel, series, places)
    if series.marker:
        for i, (point, state) in enumerate(points):
            if point is not None and state == "drawn":
                kind = "mark hollow" if i in series.hollow else "mark"
                _add(group, "path", kind, d=symbol(series.marker, *point, POINT))
    for (point, state), words in zip(points, series.words, strict=False):
        if point is not None and state == "drawn":
            _text(group, "beside", point[0] + 6, point[1] - 5, words)
    for (x, y), kind in panel.ends(series):
        if kind == "lost":
            _add(group, "path", "cross", d=symbol("x", *places(x, y), 4))
        elif panel.y.state(y) == "beyond":
            _add(group, "path", "mark arrow", d=symbol("^", places(x, 1 if panel.y.log else 0)[0], 6, 5))
        else:
            _add(group, "path", "mark arrow", d=symbol(">", places.width - 6, places(1, y)[1], 5))


def _band(group: Element, panel: Panel, series: Series, places: _Places) -> None:
    """Draw from the least to the greatest, piece by piece between what can be drawn."""
    for piece in _pieces(panel, series):
        edges = [[places(x, edge) for x, edge in zip(*side, strict=True)] for side in piece]
        _add(group, "path", "band", d=f"{_joined([*edges[0], *reversed(edges[1])])}Z")


def _pieces(panel: Panel, series: Series) -> Iterator[tuple[tuple[list[float], list[float]], ...]]:
    piece: list[tuple[float, float, float]] = []
    ends = [*zip(series.x, series.reach_y, strict=False), (math.nan, (math.nan, math.nan))]
    for x, (low, high) in ends:
        if "lost" not in (panel.state(x, low), panel.state(x, high)):
            piece.append((x, low, high))
        elif piece:
            across, lows, highs = (list(column) for column in zip(*piece, strict=True))
            yield (across, lows), (across, highs)
            piece = []


def _reach(group: Element, panel: Panel, series: Series, places: _Places) -> None:
    for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        for ends in (
            [(v, y) for v in series.reach_x[i]] if series.reach_x else [],
            [(x, v) for v in series.reach_y[i]] if series.reach_y else [],
        ):
            if ends and all(panel.state(*end) != "lost" for end in ends):
                _add(group, "path", "line thin", d=_joined([places(*end) for end in ends]))


def _joined(points: Sequence[tuple[float, float] | None]) -> str:
    """Return a path through the points, broken where there is none."""
    words, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            words.append(f"{pen}{point[0]:.1f} {max(-1e5, min(point[1], 1e5)):.1f}")
            pen = "L"
    return "".join(words)


def _dashes(series: Series) -> dict[str, str]:
    """Return the attribute that dashes a line, whose lengths are in widths of it; none for a solid one."""
    dashes = series.style.dashes
    return {} if dashes == "-" else {"stroke-dasharray": " ".join(f"{2 * length:g}" for length in dashes[1])}


def _capped(value: float) -> float:
    return max(-LIMIT, min(value, LIMIT))


def _clamped(share: float) -> float:
    return min(max(float(share), 0.0), 1.0)


def _add(parent: Element, tag: str, kind: str, **facts: Any) -> None:
    SubElement(
        parent, tag, {"class": kind, **{k: f"{v:.1f}" if isinstance(v, float) else str(v) for k, v in facts.items()}}
    )


def _text(parent: Element, kind: str, x: float, y: float, words: str, anchor: str = "start") -> None:
    if words:
        facts = {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        SubElement(parent, "text", facts).text = inert(words)
