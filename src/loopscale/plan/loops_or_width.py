"""Loops against width: the same operations spent on loops, or on more weights that are met fewer times.

A reference, named as such: the law that others fitted to 116 runs of theirs says what a loop is worth, not a
measurement of the model that is planned.
"""

from dataclasses import dataclass
from typing import final

from loopscale.plan.parameters import Parameters

EXPONENT = 0.46  # of the loops: a stack met r times is worth r^0.46 stacks (arXiv 2604.21106)
LOOPS = (1, 2, 4, 8, 16)


@final
@dataclass(frozen=True)
class Alternative:
    """A stack of `loop_parameters` met `loops` times; `equivalent` is how many weights, met once, it is worth."""

    loops: int
    loop_parameters: int
    parameters: int
    equivalent: int


def alternatives(counts: Parameters, loops: int) -> tuple[Alternative, ...]:
    """Return models whose layers cost as many operations per token as those planned, with other loops.

    L = E + A (N_once + r^0.46 N_loop)^-a + B D^-b: the weights of the loop count r^0.46 times, the others once.
    """
    once = counts.total - counts.loop
    found = []
    for r in sorted({*LOOPS, loops}):
        inside = round(counts.loop * loops / r)
        found.append(Alternative(r, inside, once + inside, round(once + r**EXPONENT * inside)))
    return tuple(found)
