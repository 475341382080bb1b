"""Visible, removed, or a blind spot: the judgement of one coordinate, and the thresholds it is judged by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from loopscale.errors import InputError

Kind = Literal["visible", "removed", "blind_spot", "undecided"]  # the last: before training, where weights decide


@dataclass(frozen=True)
class Thresholds:
    """Where the lines are drawn.

    Args:
        visible: a loss sees a coordinate from this share of its gradient on (an unrelated direction: 0.8/sqrt(hidden)).
        retained: a coordinate of which one more loop leaves at most this share counts as removed.
    """

    visible: float = 1e-3
    retained: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < 1:
                raise InputError(f"threshold '{name}' is {value}: give a number between 0 and 1.")


@dataclass(frozen=True)
class Verdict:
    """What is known of one coordinate. Loops count from 1, as in tables.

    seen_by: the losses that see it, with the loops at which they do. removed_by: the verb that takes it out of the
    loop (`carry` or `step`), None where it is carried on. remedy: one line, for a blind spot.
    """

    verdict: Kind
    seen_by: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_by: str | None = None
    remedy: str | None = None


def judge(seen_by: Mapping[str, Sequence[int]], removed_by: str | None, remedy: str) -> Verdict:
    """Return the verdict: visible where a loss sees the coordinate, else removed, else a blind spot with a remedy."""
    seen = {loss: tuple(loops) for loss, loops in seen_by.items() if loops}
    if seen:
        return Verdict("visible", seen, removed_by)
    if removed_by is not None:
        return Verdict("removed", seen, removed_by)
    return Verdict("blind_spot", seen, None, remedy)


def retention_per_loop(retention: Sequence[float]) -> float:
    """Return the share that one loop leaves, over all these loops: the geometric mean of magnitudes."""
    if not retention or any(r == 0 for r in retention):
        return 0.0
    return math.exp(sum(math.log(abs(r)) for r in retention) / len(retention))
