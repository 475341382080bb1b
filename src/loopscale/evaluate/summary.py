"""Summary of one model's depth curve with its costs, as plain values."""

from typing import Any

from loopscale.batches import Batches, inputs_and_labels
from loopscale.display import Track, untracked
from loopscale.evaluate.cost import REPEATS, measure_speed, token_flops
from loopscale.evaluate.curve import depth_curves
from loopscale.evaluate.pareto import Measured
from loopscale.facts import facts_of
from loopscale.stepping import Looped
from loopscale.storage import plain

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


def describe_depth(measured: Measured) -> dict[str, Any]:
    """Return a curve with its costs as plain values.

    Each exit has its errors and norm (see `ExitPoint`), `flops` per token and, up to the trained depth,
    `tokens_per_second` and `latency` in seconds at `batch_size`.
    """
    description = measured.curve.to_dict()
    speeds = {speed.exit: speed.to_dict() for speed in measured.speeds}
    for point in description["exits"]:
        point["flops"] = measured.flops.at_exit(point["exit"])
        for key in ("tokens_per_second", "latency", "batch_size"):
            point[key] = speeds[point["exit"]][key] if point["exit"] in speeds else None
    return description


def run_depth(
    model: Looped | Any,
    batches: Batches,
    max_loops: int | None = None,
    bytes_per_token: float | None = None,
    batch_size: int = SPEED_BATCH_SIZE,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Return the depth curve of a model with its costs as plain values, by reading: {"trained": {...}, ...}.

    See `measure_depth` and `describe_depth`.
    """
    measured = measure_depth(model, batches, max_loops, bytes_per_token, batch_size, repeats)
    return plain({name: describe_depth(one) for name, one in measured.items()})
