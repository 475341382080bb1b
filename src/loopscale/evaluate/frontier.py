"""Quality against cost, several models together: which exits are dominated, and who is better at equal cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.evaluate.cost import Speed, TokenFlops
from loopscale.evaluate.curve import DepthCurve
from loopscale.evaluate.statistics import Interval, Weights, interval, resampled_means, resampling_weights

Cost = Literal["flops", "seconds"]


@dataclass(frozen=True)
class FrontierPoint:
    """One exit of one model: its quality, and its cost per token in operations and in seconds.

    `flops` or `seconds_per_token` is None where it was not measured; `bits_per_byte` where the corpus did not say.
    """

    model: str
    exit: int
    perplexity: float
    bits_per_byte: float | None
    flops: float | None
    seconds_per_token: float | None
    batch_size: int | None = None
    latency: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput."""
        return None if self.seconds_per_token is None else 1 / self.seconds_per_token

    def cost(self, kind: Cost) -> float | None:
        """Return the cost of that kind, per token."""
        return self.flops if kind == "flops" else self.seconds_per_token


@dataclass(frozen=True)
class Measured:
    """What the frontier needs of one model: its curve, its operations and its speeds at one batch size."""

    curve: DepthCurve
    flops: TokenFlops
    speeds: Sequence[Speed]

    def costs(self, kind: Cost) -> list[float]:
        """Return the cost per token of every timed exit."""
        if kind == "flops":
            return [self.flops.at_exit(speed.exit) for speed in self.speeds]
        return [1 / speed.tokens_per_second for speed in self.speeds]

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
    """Return for each point whether another costs no more and is no worse, and is better in one of the two.

    Quality is bits per byte where all points have it, else perplexity. A point without that cost is not judged.
    """
    by_byte = all(point.bits_per_byte is not None for point in points)
    places = [(p.cost(kind), p.bits_per_byte if by_byte else p.perplexity) for p in points]

    def beats(a: tuple[float | None, float | None], b: tuple[float | None, float | None]) -> bool:
        if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
            return False
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    return [any(beats(other, place) for other in places) for place in places]


def differences(
    models: Mapping[str, Measured], model: str, reference: str, at_equal: Cost, seed: int = 0
) -> list[Difference]:
    """Compare two models at equal cost per token: operations (`flops`) or time (`seconds`, that is throughput).

    At the cost of each exit of `model` that lies within the costs of `reference`, the reference's cross-entropy is
    interpolated, linearly in the logarithm of the cost. Intervals are bootstrap ones over windows (95%), paired where
    both were measured on the same windows. Timing noise is not in them.

    Raises `InputError` where tokens differ and the curves do not know bytes per token.
    """
    ours, theirs = models[model], models[reference]
    paired = torch.equal(ours.curve.tokens, theirs.curve.tokens)
    weights = resampling_weights(ours.curve.tokens.numel(), seed)
    others = weights if paired else resampling_weights(theirs.curve.tokens.numel(), seed + 1)
    y, y_samples = _quality(ours, weights, paired)
    ref, ref_samples = _quality(theirs, others, paired)
    costs, grid = ours.costs(at_equal), sorted(theirs.costs(at_equal))
    order = torch.tensor(theirs.costs(at_equal)).argsort()
    found = []
    for i, cost in enumerate(costs):
        if not grid[0] * (1 - 1e-9) <= cost <= grid[-1] * (1 + 1e-9):
            continue
        at = _weights_between(grid, cost)
        samples = y_samples[:, i] - ref_samples[:, order] @ at
        value = interval(float(y[i] - ref[order] @ at), samples)
        exit = ours.speeds[i].exit
        found.append(Difference(model, reference, at_equal, exit, cost, value, "token" if paired else "byte"))
    return found


def _quality(measured: Measured, weights: Weights, per_token: bool) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of the timed exits, (exits,), and of their bootstrap samples, (resamples, exits)."""
    curve = measured.curve
    if not per_token and curve.bytes_per_token is None:
        raise InputError("these models were measured on different tokens: compare them with bytes_per_token given.")
    unit = 1.0 if per_token or curve.bytes_per_token is None else curve.bytes_per_token
    losses = torch.stack([curve.losses[speed.exit - 1] for speed in measured.speeds]) / unit
    every = torch.ones(1, curve.tokens.numel(), dtype=torch.float64)
    return resampled_means(losses, curve.tokens, every)[0], resampled_means(losses, curve.tokens, weights)


def _weights_between(grid: Sequence[float], cost: float) -> Float[Tensor, " exits"]:
    """Return the weights of the grid's points that interpolate at `cost`, linear in log cost."""
    weights = torch.zeros(len(grid), dtype=torch.float64)
    right = next((i for i, g in enumerate(grid) if g >= cost * (1 - 1e-9)), len(grid) - 1)
    if right == 0 or math.isclose(grid[right], cost, rel_tol=1e-9):
        weights[right] = 1.0
        return weights
    low, high = math.log(grid[right - 1]), math.log(grid[right])
    share = (math.log(cost) - low) / (high - low)
    weights[right - 1], weights[right] = 1 - share, share
    return weights


def points_table(points: Sequence[FrontierPoint]) -> list[dict[str, Any]]:
    """Return the points as JSON-able rows, with whether each is dominated by either cost."""
    by_flops, by_seconds = dominated(points, "flops"), dominated(points, "seconds")
    return [
        {**asdict(p), "tokens_per_second": p.tokens_per_second, "dominated_flops": f, "dominated_seconds": s}
        for p, f, s in zip(points, by_flops, by_seconds, strict=True)
    ]
