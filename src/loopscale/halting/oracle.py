"""The bound for every halting rule: the best choice of exits by someone who knows the labels."""

import math
from dataclasses import dataclass

import torch

from loopscale.halting.calibration import Target
from loopscale.halting.rules import Level
from loopscale.halting.trace import ExitTrace

DEAREST = 1e4  # nats per loop: nobody pays it
CHEAPEST = 1e-9
BISECTIONS = 100


@dataclass(frozen=True)
class OraclePoint:
    """What the oracle reaches: perplexity relative to full depth, and mean selected loops (from 1)."""

    relative_perplexity: float
    selected_loops: float


def oracle(trace: ExitTrace, target: Target, level: Level = "sequence") -> OraclePoint:
    """Return the best that any choice of one exit per unit can do under a target, on these very windows.

    Fewest loops at the loss a `RelativePerplexity` allows, or least loss within `MeanLoops`. Each unit takes the exit
    of least loss + price * loops. Such choices form the lower convex hull of all that is possible; the price that meets
    the target is found by bisection and the choices on both sides of it are mixed: the exact optimum over mixtures.
    """
    losses, size = trace.losses.double(), trace.scored.double()
    if level == "sequence":
        losses, size = losses.sum(-1, keepdim=True), size.sum(-1, keepdim=True)
    loops = torch.arange(1, trace.num_loops + 1, dtype=torch.float64)[:, None, None]

    def at(price: float) -> tuple[float, float]:
        chosen = (losses + price * loops * size).argmin(0)
        loss = losses.gather(0, chosen[None]).sum() - losses[-1].sum()
        return float(loss / size.sum()), float(((chosen + 1) * size).sum() / size.sum())

    axis, limit = (0 if target.bounds_loss else 1), target.limit()
    best, fewest = at(0.0), at(DEAREST)
    if target.bounds_loss and fewest[0] <= limit:
        return OraclePoint(math.exp(fewest[0]), fewest[1])
    if not target.bounds_loss and best[1] <= limit:
        return OraclePoint(math.exp(best[0]), best[1])
    low, high = CHEAPEST, DEAREST
    for _ in range(BISECTIONS):
        price = math.sqrt(low * high)
        point = at(price)
        if (point[axis] > limit) == target.bounds_loss:  # too dear
            high, fewest = price, point
        else:
            low, best = price, point
    share = (limit - best[axis]) / (fewest[axis] - best[axis])
    loss, mean_loops = (a + share * (b - a) for a, b in zip(best, fewest, strict=True))
    return OraclePoint(math.exp(loss), mean_loops)
