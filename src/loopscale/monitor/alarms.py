"""Alarms: what the figures of the loops say is about to go wrong, in words.

Each tells what was seen, at which loop, and what to do; the same alarm is raised again only once things are worse.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, final

from loopscale.errors import InputError
from loopscale.monitor.loop_sums import Reading
from loopscale.state import room

Kind = Literal["not_finite", "range", "surge", "drift", "idle"]
HISTORY = 5  # readings that a rate of growth is taken from


@final
@dataclass(frozen=True)
class Alarm:
    """One warning: its kind, the step, the loop (from 1), the value that raised it, and the sentence that is logged."""

    kind: Kind
    step: int
    loop: int
    value: float
    text: str

    def __str__(self) -> str:
        return self.text


@final
@dataclass(frozen=True)
class Thresholds:
    """When an alarm is raised.

    grown: a blind scale is that many times its first reading. visible: from this share of the gradient on a loss sees
    the scale. range: share of the largest number that a state may reach. ahead: it is also told when growth at the
    present rate gets there within that many readings. turn: an angle between states, in radians, below which a loop no
    longer turns the state. surge: growth of the last loop's scale from one reading to the next, if it is also thrice
    as fast as any of the latest.
    """

    grown: float = 3.0
    visible: float = 1e-3
    range: float = 1 / 16
    ahead: int = 10
    turn: float = 0.01
    surge: float = 2.0

    def __post_init__(self) -> None:
        if not (
            self.grown > 1
            and self.surge > 1
            and 0 < self.range <= 1
            and self.ahead >= 0
            and self.turn >= 0
            and self.visible >= 0
        ):
            raise InputError(
                f"{self}: grown and surge must be more than 1, range within 0..1, and the others not below 0."
            )


@final
class Alarms:
    """Judges readings in their order. `blind`: whether a loss sees the scale, where that is known beforehand."""

    def __init__(self, thresholds: Thresholds, blind: bool | None = None) -> None:
        self.thresholds, self.blind = thresholds, blind
        self._raised: dict[str, float] = {}
        self._first: tuple[float, ...] = ()  # scales of each loop in the first reading that has it
        self._past: deque[tuple[int, float]] = deque(maxlen=HISTORY)
        self._growth: deque[float] = deque(maxlen=HISTORY)  # of the last loop's scale, logarithms
        self._before: Reading | None = None

    def of(self, reading: Reading) -> list[Alarm]:
        """Return what this reading gives reason to say."""
        broken = next((k for k, value in enumerate(reading.norm) if not math.isfinite(value)), None)
        if broken is not None:
            return list(self._not_finite(reading, broken))
        return [*self._range(reading), *self._surge(reading), *self._drift(reading), *self._idle(reading)]

    def _worse(self, kind: Kind, badness: float, factor: float | None) -> bool:
        """Return whether an alarm is new, or `factor` times as bad as when it was raised last (None: never again)."""
        before = self._raised.get(kind)
        if before is not None and (factor is None or badness < before * factor):
            return False
        self._raised[kind] = badness
        return True

    def _not_finite(self, reading: Reading, k: int) -> Iterator[Alarm]:
        if self._worse("not_finite", 1.0, None):
            text = (
                f"step {reading.step}: the state after loop {k + 1} is no longer finite. Go back to the last "
                "checkpoint, with a lower learning rate or a bound on the state's scale."
            )
            yield Alarm("not_finite", reading.step, k + 1, reading.norm[k], text)

    def _range(self, reading: Reading) -> Iterator[Alarm]:
        """The state nears the largest number: of its dtype, or the one whose squares float32 can add up."""
        largest = max(reading.largest)
        loop = reading.largest.index(largest) + 1
        limit = room(reading.dtype, reading.hidden)
        self._past.append((reading.step, math.log(max(largest, 1e-30))))
        left = self._steps_until(math.log(limit))
        per_reading = (self._past[-1][0] - self._past[0][0]) / max(1, len(self._past) - 1)
        near = largest >= self.thresholds.range * limit
        if not near and left > self.thresholds.ahead * per_reading:
            return
        if self._worse("range", largest / limit, 4.0):
            name = str(reading.dtype).removeprefix("torch.")
            soon = f"; at this rate it gets there in about {left:.0f} steps" if math.isfinite(left) and left > 0 else ""
            text = (
                f"step {reading.step}: the largest number of the state after loop {loop} is {largest:.3g}, and "
                f"{limit:.3g} is the most that {name} and the squares in a norm have room for{soon}. Lower the "
                "learning rate, or bound the state: a norm penalty, an inter-loop norm."
            )
            yield Alarm("range", reading.step, loop, largest / limit, text)

    def _steps_until(self, log_limit: float) -> float:
        """Return the steps until the limit at the slowest pace of the latest readings; infinite where one fell."""
        if len(self._past) < HISTORY:
            return math.inf
        pairs = list(self._past)
        rates = [(b - a) / max(1, j - i) for (i, a), (j, b) in pairwise(pairs)]
        return max(0.0, log_limit - pairs[-1][1]) / min(rates) if min(rates) > 0 else math.inf

    def _surge(self, reading: Reading) -> Iterator[Alarm]:
        """The scale grows all at once: in a model whose loss does not see it, before the loss says so."""
        before, self._before = self._before, reading
        if before is None:
            return
        K = min(len(before.scale), len(reading.scale))  # where the depth is drawn anew, the same loop
        was, value = before.scale[K - 1], reading.scale[K - 1]
        if not min(was, value) > 0:
            return
        growth = value / was
        fastest = max(map(abs, self._growth), default=math.inf)
        known = len(self._growth) == HISTORY
        self._growth.append(math.log(growth))
        limit = self.thresholds.surge
        if known and growth > limit and math.log(growth) > 3 * fastest and self._worse("surge", value, limit):
            text = (
                f"step {reading.step}: the scale of the state after loop {K} is {growth:.1f} times what it was at step "
                f"{before.step}, and before it grew by at most {math.exp(fastest):.2f} times between readings: the run "
                "may be about to diverge. Lower the learning rate, or go back to a checkpoint."
            )
            yield Alarm("surge", reading.step, K, growth, text)

    def _drift(self, reading: Reading) -> Iterator[Alarm]:
        self._first = self._first if any(self._first) else ()
        self._first += reading.scale[len(self._first) :]
        K, value = len(reading.scale), reading.scale[-1]
        first = self._first[K - 1]
        unseen, grown = self.blind if self.blind is not None else self._unseen(reading), self.thresholds.grown
        if not unseen or not first > 0 or value <= grown * first or not self._worse("drift", value, grown):
            return
        seen = "" if reading.visibility is None else f" ({reading.visibility:.1e} of its gradient lies along the state)"
        text = (
            f"step {reading.step}: the scale of the state after loop {K} is {value:.3g}, {value / first:.1f} "
            f"times what it was at first, and no loss sees it{seen}: nothing holds it. Let the readout see the scale, "
            "penalise the norm, or take the scale out of the recurrence."
        )
        yield Alarm("drift", reading.step, K, value, text)

    def _unseen(self, reading: Reading) -> bool:
        return reading.visibility is not None and reading.visibility < self.thresholds.visible

    def _idle(self, reading: Reading) -> Iterator[Alarm]:
        if not reading.angular_step:
            return
        angles = [step / reading.hidden**0.5 for step in reading.angular_step]  # of unit vectors
        angle = angles[-1]
        if angle >= self.thresholds.turn:
            self._raised.pop("idle", None)
        elif self._worse("idle", 1.0, None):
            K = len(reading.scale)
            first = max((k for k, turned in enumerate(angles) if turned >= self.thresholds.turn), default=-1) + 1
            text = (
                f"step {reading.step}: loop {K} turns the state by {angle:.2g} radians, and moves it by "
                f"{reading.update[-1]:.2g} of its length: from loop {first + 2} on loops hardly change its direction. "
                "Where the loop is not meant to settle, bound the scale that updates are added to, or use fewer loops."
            )
            yield Alarm("idle", reading.step, K, angle, text)
