"""Report of one model's depth curve with its costs: a record that files hold."""

from dataclasses import replace
from typing import Any

from loopscale.batches import Batches, inputs_and_labels
from loopscale.display import Track, untracked
from loopscale.evaluate.cost import REPEATS, measure_speed, token_flops
from loopscale.evaluate.curve import DepthReport, ExitPoint, depth_curves
from loopscale.evaluate.pareto import Measured
from loopscale.facts import facts_of
from loopscale.stepping import Looped

SPEED_BATCH_SIZE = 8


def measure_depth(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None = None,
    bytes_per_token: float | None = None,
    batch_size: int = SPEED_BATCH_SIZE,
    repeats: int = REPEATS,
    track: Track = untracked,
) -> dict[str, Measured]:
    """Return curve, operations and speeds of a model under every reading of its exits.

    The curve goes to `max_loops` (default: 3 times the trained depth); exits up to the trained depth are timed, at
    `batch_size` windows, or as many as there are.
    """
    facts, windows = facts_of(model), list(batches)
    curves = depth_curves(model, track(windows, "depth curve"), max_loops, bytes_per_token)
    ids, _ = inputs_and_labels(windows[0], facts.padding)
    ids = ids[:batch_size]
    longest = len(next(iter(curves.values())))
    speeds = measure_speed(model, ids, range(1, min(facts.trained_depth, longest) + 1), repeats)
    flops = token_flops(model, ids[:1])
    return {name: Measured(curve, flops, speeds) for name, curve in curves.items()}


def describe_depth(measured: Measured) -> DepthReport:
    """Return what a curve says, with the costs of its exits."""
    report, speeds = measured.curve.report(), {speed.exit: speed for speed in measured.speeds}

    def costed(point: ExitPoint) -> ExitPoint:
        known = replace(point, flops=measured.flops.at_exit(point.exit))
        if (speed := speeds.get(point.exit)) is None:
            return known
        pace, wait = speed.tokens_per_second, speed.latency
        return replace(known, tokens_per_second=pace, latency=wait, batch_size=speed.batch_size)

    return replace(report, exits=tuple(costed(point) for point in report.exits))


def run_depth(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None = None,
    bytes_per_token: float | None = None,
    batch_size: int = SPEED_BATCH_SIZE,
    repeats: int = REPEATS,
) -> dict[str, DepthReport]:
    """Return what the depth curve of a model says, with costs, by reading: `run_depth(...)["trained"].exits[0]`.

    See `measure_depth`.
    """
    measured = measure_depth(model, batches, max_loops, bytes_per_token, batch_size, repeats)
    return {name: describe_depth(one) for name, one in measured.items()}
