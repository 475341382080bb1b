"""Frontier of quality against cost, several models together: dominated exits, and who is better at equal cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.evaluate.cost import Speed, TokenFlops
from loopscale.evaluate.curve import DepthCurve
from loopscale.evaluate.statistics import (
    RESAMPLES,
    Interval,
    Weights,
    interval,
    resampled_means,
    resampling_weights,
)

Cost = Literal["flops", "seconds"]


@dataclass(frozen=True)
class FrontierPoint:
    """One exit of one model: its quality, and its cost per token in operations and in seconds.

    `flops` or `seconds_per_token` is None where it was not measured; `bits_per_byte` where the corpus did not say.
    Points of another `group` (published ones, say, on another corpus) are shown but not compared.
    """

    model: str
    exit: int
    perplexity: float
    bits_per_byte: float | None
    flops: float | None
    seconds_per_token: float | None
    batch_size: int | None = None
    latency: float | None = None
    group: str = "measured"

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput."""
        return None if self.seconds_per_token is None else 1 / self.seconds_per_token

    def cost(self, kind: Cost) -> float | None:
        """Return the cost of that kind, per token."""
        return self.flops if kind == "flops" else self.seconds_per_token


@dataclass(frozen=True)
class Measured:
    """What the frontier needs of one model: its curve, its operations and the speeds of its exits at one batch size."""

    curve: DepthCurve
    flops: TokenFlops
    speeds: Sequence[Speed]

    def costs(self, kind: Cost) -> Float[Tensor, "exits rounds"]:
        """Return the cost per token of every timed exit, in every round of timing (operations: the same in all)."""
        seconds = torch.tensor([speed.seconds for speed in self.speeds], dtype=torch.float64)
        if kind == "seconds":
            first = self.speeds[0]
            return seconds / (first.batch_size * first.sequence_length)
        flops = [self.flops.at_exit(speed.exit) for speed in self.speeds]
        return torch.tensor(flops, dtype=torch.float64)[:, None].expand_as(seconds)

    def points(self, name: str) -> list[FrontierPoint]:
        """Return the timed exits as points."""
        return [
            FrontierPoint(
                model=name,
                exit=speed.exit,
                perplexity=self.curve[speed.exit - 1].perplexity,
                bits_per_byte=self.curve[speed.exit - 1].bits_per_byte,
                flops=self.flops.at_exit(speed.exit),
                seconds_per_token=1 / speed.tokens_per_second,
                batch_size=speed.batch_size,
                latency=speed.latency,
            )
            for speed in self.speeds
        ]


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another at equal cost.

    `nats` is cross-entropy of `model` minus that of `reference`, per token, or per byte where their tokens differ;
    negative is better. It is read where `model` has its exit `exit`, with the reference interpolated there.
    """

    model: str
    reference: str
    at_equal: Cost
    exit: int
    cost: float
    nats: Interval
    per: Literal["token", "byte"]


def frontier(models: Mapping[str, Measured], reference_points: Sequence[FrontierPoint] = ()) -> list[FrontierPoint]:
    """Return all exits of all models as points, and `reference_points` (published ones, say) beside them."""
    return [*(point for name, measured in models.items() for point in measured.points(name)), *reference_points]


def dominated(points: Sequence[FrontierPoint], kind: Cost) -> list[bool]:
    """Return for each point whether one of its group costs no more and is no worse, and is better in one of the two.

    Quality is bits per byte where both points have it, else perplexity. A point without that cost is not judged.
    """
    return [any(_beats(other, point, kind) for other in points if other.group == point.group) for point in points]


def _beats(a: FrontierPoint, b: FrontierPoint, kind: Cost) -> bool:
    cost_a, cost_b = a.cost(kind), b.cost(kind)
    if cost_a is None or cost_b is None:
        return False
    if a.bits_per_byte is None or b.bits_per_byte is None:
        better = (cost_a, a.perplexity), (cost_b, b.perplexity)
    else:
        better = (cost_a, a.bits_per_byte), (cost_b, b.bits_per_byte)
    (x, y), (other_x, other_y) = better
    return x <= other_x and y <= other_y and (x, y) != (other_x, other_y)


def differences(
    models: Mapping[str, Measured], model: str, reference: str, at_equal: Cost, seed: int = 0
) -> list[Difference]:
    """Compare two models at equal cost per token: operations (`flops`) or time (`seconds`, that is throughput).

    At the cost of each exit of `model` that lies within the costs of `reference`, the reference's cross-entropy is
    interpolated, linearly in the logarithm of the cost. Intervals are bootstrap ones (95%) over windows, paired where
    both were measured on the same, and over the rounds of timing, which must be from one `measure_speeds` call.

    Raises `InputError` where tokens differ and the curves do not know bytes per token, or rounds differ.
    """
    ours, theirs = models[model], models[reference]
    paired = torch.equal(ours.curve.tokens, theirs.curve.tokens)
    windows = resampling_weights(ours.curve.tokens.numel(), seed)
    other_windows = windows if paired else resampling_weights(theirs.curve.tokens.numel(), seed + 1)
    cost, quality = _costs(ours, at_equal, seed), _quality(ours, windows, paired)
    grid, known = _costs(theirs, at_equal, seed), _quality(theirs, other_windows, paired)
    if ours.costs(at_equal).shape[1] != theirs.costs(at_equal).shape[1]:
        raise InputError("these models were timed in different rounds: time them together with measure_speeds.")
    found = []
    for i, speed in enumerate(ours.speeds):
        if _covers(grid[0], float(cost[0, i])):  # the first row is the measurement itself
            nats = quality[:, i] - _interpolate(cost[:, i], grid, known)
            value = interval(float(nats[0]), nats[1:])
            per: Literal["token", "byte"] = "token" if paired else "byte"
            found.append(Difference(model, reference, at_equal, speed.exit, float(cost[0, i]), value, per))
    return found


def _costs(measured: Measured, kind: Cost, seed: int) -> Float[Tensor, "samples exits"]:
    """Return the median costs of the timed exits: as measured, then with the rounds of timing drawn anew."""
    costs = measured.costs(kind)
    generator = torch.Generator().manual_seed(seed)
    rounds = torch.randint(costs.shape[1], (RESAMPLES, costs.shape[1]), generator=generator)
    drawn = costs[:, rounds].quantile(0.5, dim=-1).T  # (S, exits)
    return torch.cat([costs.quantile(0.5, dim=-1)[None], drawn])


def _quality(measured: Measured, weights: Weights, per_token: bool) -> Float[Tensor, "samples exits"]:
    """Return the cross-entropies of the timed exits: as measured, then of bootstrap samples of windows."""
    curve = measured.curve
    if not per_token and curve.bytes_per_token is None:
        raise InputError("these models were measured on different tokens: compare them with bytes_per_token given.")
    unit = 1.0 if per_token or curve.bytes_per_token is None else curve.bytes_per_token
    losses = torch.stack([curve.losses[speed.exit - 1] for speed in measured.speeds]) / unit
    every = torch.ones(1, curve.tokens.numel(), dtype=torch.float64)
    return resampled_means(losses, curve.tokens, torch.cat([every, weights]))


def _interpolate(
    at: Float[Tensor, " samples"], grid: Float[Tensor, "samples exits"], values: Float[Tensor, "samples exits"]
) -> Float[Tensor, " samples"]:
    """Return sample by sample the value at a cost, linear in log cost; a cost off the grid takes the nearest value."""
    order = grid.argsort(1)
    rows = zip(at.log().tolist(), grid.gather(1, order).log().numpy(), values.gather(1, order).numpy(), strict=True)
    return torch.tensor([np.interp(x, xs, ys) for x, xs, ys in rows], dtype=torch.float64)


def interpolated(curve: Sequence[tuple[float, float]], at: float) -> float | None:
    """Return the value of a curve of (cost, value) pairs at a cost, linear in log cost as in `differences`.

    None outside the curve's costs.
    """
    costs, values = torch.tensor(curve, dtype=torch.float64).T
    if not _covers(costs, at):
        return None
    return float(_interpolate(torch.tensor([at], dtype=torch.float64), costs[None], values[None]))


def _covers(costs: Float[Tensor, " exits"], at: float) -> bool:
    return bool(costs.min() * (1 - 1e-9) <= at <= costs.max() * (1 + 1e-9))


def points_table(points: Sequence[FrontierPoint]) -> list[dict[str, Any]]:
    """Return the points as JSON-able rows, with whether each is dominated by either cost."""
    by_flops, by_seconds = dominated(points, "flops"), dominated(points, "seconds")
    return [
        {**asdict(p), "tokens_per_second": p.tokens_per_second, "dominated_flops": f, "dominated_seconds": s}
        for p, f, s in zip(points, by_flops, by_seconds, strict=True)
    ]
