"""Charts: what a figure shows, as data, so that a file and a page draw the same.

Matplotlib draws them for files (`loopscale.display.plotting`), pages as SVG (`loopscale.display.page`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, final

from loopscale.display.figure import Style
from loopscale.display.numbers import number

NAMED = 4  # lines that a remark names
LIMIT = 1e100  # beyond, the margins of a log axis overflow

Reach = tuple[tuple[float, float], ...]
State = Literal["drawn", "beyond", "lost"]


@final
@dataclass(frozen=True)
class Axis:
    """One axis. `whole`: it counts; `falling`: the greatest comes first; `end`: what is above leaves the picture.

    `names` are of rows, 0, 1, ..., from the top down.
    """

    label: str
    log: bool = False
    whole: bool = False
    falling: bool = False
    end: float = math.inf
    names: tuple[str, ...] = ()

    def state(self, value: float) -> State:
        """Return whether a value can be drawn, lies beyond the end, or is none (not finite, or zero on a log axis)."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return "lost"
        return "drawn" if abs(value) <= min(self.end, LIMIT) else "beyond"


@final
@dataclass(frozen=True)
class Series:
    """Points under one name, joined unless `marks_only`. Equal names are one entry of the legend.

    marker: matplotlib's, "" for none; hollow: the places of points that are not filled; reach_x, reach_y: from where to
    where a point may lie, a band along a line; words: drawn beside each point; notes: told of each point.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: Style
    marker: str = ""
    marks_only: bool = False
    hollow: frozenset[int] = frozenset()
    reach_x: Reach = ()
    reach_y: Reach = ()
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Rule:
    """A line across at one value of an axis, with its words."""

    axis: Literal["x", "y"]
    value: float
    words: str = ""


@final
@dataclass(frozen=True)
class Zone:
    """A shaded part of a panel between values, infinite ones at its ends, with its words."""

    x: tuple[float, float] = (-math.inf, math.inf)
    y: tuple[float, float] = (-math.inf, math.inf)
    words: str = ""


@final
@dataclass(frozen=True)
class Panel:
    """Series on one pair of axes. `across`: they are compared at equal x."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    rules: tuple[Rule, ...] = ()
    zones: tuple[Zone, ...] = ()
    across: bool = False

    def state(self, x: float, y: float) -> State:
        """Return whether a point can be drawn."""
        states = {self.x.state(x), self.y.state(y)}
        return "lost" if "lost" in states else "beyond" if "beyond" in states else "drawn"

    def points(self, series: Series) -> Iterator[tuple[float, float, State]]:
        """Yield the points of a series, and what can be drawn of each."""
        for x, y in zip(series.x, series.y, strict=True):
            yield x, y, self.state(x, y)

    def ends(self, series: Series) -> Iterator[tuple[tuple[float, float], State]]:
        """Yield where a series leaves the picture (`beyond`), and its last points before what is no number (`lost`)."""
        points = list(self.points(series))
        for i, (x, y, state) in enumerate(points):
            beside = {points[j][2] for j in (i - 1, i + 1) if 0 <= j < len(points)}
            alone = series.marks_only or "drawn" not in {point[2] for point in points}
            if state == "beyond" and (alone or "drawn" in beside):
                yield (x, y), "beyond"
            elif state == "drawn" and "lost" in beside and not series.marks_only:
                yield (x, y), "lost"


@final
@dataclass(frozen=True)
class Chart:
    """Panels beside each other under one legend."""

    panels: tuple[Panel, ...]

    @property
    def series(self) -> tuple[Series, ...]:
        """All series of all panels, in order."""
        return tuple(chain.from_iterable(panel.series for panel in self.panels))

    @property
    def legend(self) -> dict[str, Series]:
        """The first series of every name, in order."""
        first: dict[str, Series] = {}
        for series in self.series:
            first.setdefault(series.name, series)
        return first


#: What is said of points that are not drawn: the words, their state, and whether the value is finite.
LEFT_OUT = (
    ("Arrows: beyond the axis", "beyond", True),
    ("Crosses: not finite beside them", "lost", False),
    ("Crosses: not above 0, where the axis is logarithmic, beside them", "lost", True),
)


def remarks(chart: Chart) -> str:
    """Say in words what could not be drawn: points beyond an axis, shown as arrows, and those that are no numbers."""
    said = []
    left = {name: {kind: _left_out(chart, name, kind) for kind in ("beyond", "lost")} for name in chart.legend}
    for words, kind, finite in LEFT_OUT:
        values_of = {name: [v for v in of[kind] if math.isfinite(v) == finite] for name, of in left.items()}
        found = {name: values for name, values in values_of.items() if values}
        if found:
            named = [f"{name} at {len(values)} point{'s' * (len(values) > 1)}" for name, values in found.items()]
            if len(named) > NAMED:
                named = [f"{len(found)} of {len(chart.legend)} lines at {sum(map(len, found.values()))} points"]
            to = f", up to {number(max(map(max, found.values())))}" if kind == "beyond" else ""
            said.append(f"{words}, {', '.join(named)}{to}.")
    return " ".join(said)


def _left_out(chart: Chart, name: str, kind: str) -> list[float]:
    """Return the values that are beyond an axis, or lost, of the points under a name."""
    found = []
    for panel in chart.panels:
        points = [point for series in panel.series if series.name == name for point in panel.points(series)]
        found += [x if panel.x.state(x) == kind else y for x, y, state in points if state == kind]
    return found


def between(values: Sequence[Sequence[float]]) -> Reach:
    """Return from where to where the rows of values go, place by place; nothing for one row."""
    return tuple((min(column), max(column)) for column in zip(*values, strict=True)) if len(values) > 1 else ()
