"""Bound of every halting rule: the oracle, the best choice of exits by someone who knows the labels."""

import math
from dataclasses import dataclass

import torch

from loopscale.halting.rules import Level
from loopscale.halting.targets import Target
from loopscale.halting.trace import ExitTrace
from loopscale.system.precision import perplexity

DEAREST = 1e4  # nats per loop: nobody pays it, unless an exit explodes
NEVER = 1e30  # nats of a token at an exit that has no finite loss
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
    losses, size = trace.losses.double().nan_to_num(nan=NEVER, posinf=NEVER), trace.scored.double()
    if not trace.losses[-1].isfinite().all():  # there is no full depth to compare with
        return OraclePoint(math.nan, math.nan)
    if level == "sequence":
        losses, size = losses.sum(-1, keepdim=True), size.sum(-1, keepdim=True)
    loops = torch.arange(1, trace.num_loops + 1, dtype=torch.float64)[:, None, None]

    def at(price: float) -> tuple[float, float]:
        chosen = (losses + price * loops * size).argmin(0)
        loss = losses.gather(0, chosen[None]).sum() - losses[-1].sum()
        return float(loss / size.sum()), float(((chosen + 1) * size).sum() / size.sum())

    axis, limit = (0 if target.bounds_loss else 1), target.limit()
    dearest = max(DEAREST, 2 * float(((losses[0] - losses.amin(0)) / size.clamp_min(1)).max()))
    best, fewest = at(0.0), at(dearest)
    if target.bounds_loss and fewest[0] <= limit:
        return OraclePoint(perplexity(fewest[0]), fewest[1])
    if not target.bounds_loss and best[1] <= limit:
        return OraclePoint(perplexity(best[0]), best[1])
    low, high = CHEAPEST, dearest
    for _ in range(BISECTIONS):
        price = math.sqrt(low * high)
        point = at(price)
        if (point[axis] > limit) == target.bounds_loss:  # too dear
            high, fewest = price, point
        else:
            low, best = price, point
    span = fewest[axis] - best[axis]
    share = (limit - best[axis]) / span if span else 0.0
    loss, mean_loops = (a + share * (b - a) for a, b in zip(best, fewest, strict=True))
    return OraclePoint(perplexity(loss), mean_loops)
