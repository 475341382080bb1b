"""Scales: from where to where an axis goes and where its ticks stand, the same in a file and on a page."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from loopscale.display.chart import Axis, Panel

MARGIN = 0.04  # of the range, at both ends
FEW_DECADES = 200.0  # up to this range a log axis has room for 1, 2, 5
STEPS = (1, 2, 2.5, 5, 10)


@final
@dataclass(frozen=True)
class Scale:
    """The range of an axis, and its ticks with their words."""

    low: float
    high: float
    log: bool
    falling: bool
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Return the place of a value, 0 at the axis's start and 1 at its end."""
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        share = (value - low) / (high - low)
        return 1 - share if self.falling else share


def scale_of(panel: Panel, kind: Literal["x", "y"], most_ticks: int = 9) -> Scale:
    """Return the scale that holds every point of the panel that can be drawn."""
    axis: Axis = getattr(panel, kind)
    if axis.names:
        ticks = tuple((float(i), name) for i, name in enumerate(axis.names))
        return Scale(-0.6, len(axis.names) - 0.4, False, False, ticks)
    known = [value for value in _values(panel, kind) if axis.state(value) == "drawn"]
    low, high = (min(known), max(known)) if known else (1.0, 2.0) if axis.log else (0.0, 1.0)
    if axis.log:
        room = max((high / low) ** MARGIN, 1.02)
        low, high = low / room, high * room
    else:
        room = max((high - low) * MARGIN, 0.2 if axis.whole else abs(high) * 1e-3, 1e-12)
        low, high = low - room, high + room
    return Scale(low, high, axis.log, axis.falling, tuple(_ticks(axis, low, high, most_ticks)))


def tick_words(value: float) -> str:
    """Return a value as the label of a tick."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _values(panel: Panel, kind: Literal["x", "y"]) -> Iterator[float]:
    for series in panel.series:
        inside = [state == "drawn" for _, _, state in panel.points(series)]
        for value, shown in zip(getattr(series, kind), inside, strict=True):
            if shown:
                yield value
        for ends, shown in zip(getattr(series, f"reach_{kind}"), inside, strict=False):
            if shown:
                yield from ends
    yield from (rule.value for rule in panel.rules if rule.axis == kind)


def _ticks(axis: Axis, low: float, high: float, most: int) -> Iterator[tuple[float, str]]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.log and high > 3 * low:
        subs = (1, 2, 5) if high < FEW_DECADES * low else (1,)
        values = LogLocator(subs=subs, numticks=most).tick_values(low, high)
    else:
        values = MaxNLocator(most, integer=axis.whole, steps=STEPS, min_n_ticks=1).tick_values(low, high)
    for value in values:
        if low <= value <= high and not (axis.whole and value < min(1, low)):
            yield float(value), tick_words(float(f"{value:.10g}"))
