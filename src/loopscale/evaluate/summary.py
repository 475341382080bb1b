"""All measurements of one model as plain values: the depth curve with costs, and the halting table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from loopscale.batches import Batches, inputs_and_labels, windows_of
from loopscale.evaluate.calibration import (
    HaltingResult,
    RelativePerplexity,
    Target,
    calibrate,
    evaluate_halting,
)
from loopscale.evaluate.cost import REPEATS, measure_speed, token_flops
from loopscale.evaluate.curve import depth_curves
from loopscale.evaluate.frontier import Measured
from loopscale.evaluate.halting_rules import RULES, HaltingRule, Level
from loopscale.evaluate.halting_run import time_halting
from loopscale.evaluate.halting_trace import trace_exits
from loopscale.evaluate.oracle import oracle
from loopscale.evaluate.progress import Track, untracked
from loopscale.facts import facts_of
from loopscale.stepping import Looped
from loopscale.storage import plain

SPEED_BATCH_SIZE = 8
FEWEST_TIMED = 8  # windows


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


def run_halting(
    model: Looped | Any,
    calibration_batches: Batches,
    test_batches: Batches,
    target: Target | None = None,
    rules: Sequence[HaltingRule] | None = None,
    levels: Sequence[Level] = ("sequence", "token"),
    batch_sizes: Sequence[int] = (32,),
    time_all: bool = False,
    repeats: int = 2,
    num_loops: int | None = None,
    track: Track = untracked,
) -> dict[str, Any]:
    """Calibrate rules on one split and return what they do on another, as plain values.

    Defaults: relative perplexity 1.01, every rule that fits the model, full depth the model's own. `results` has a row
    per level and rule: the calibrated rule, relative perplexity, selected and executed loops with their intervals on
    the test windows; `oracle` is the bound per level. Wall time is taken at each of the `batch_sizes`, on one batch of
    test windows but at least 8, for all rules (`time_all`) or for the one of each level that saves the most executed
    loops and keeps the target.
    """
    target = RelativePerplexity() if target is None else target
    rules = [rule for rule in RULES.values() if rule.applies_to(model)] if rules is None else rules
    test_windows = list(test_batches)
    calibration = trace_exits(model, track(list(calibration_batches), "halting: calibration"), rules, num_loops)
    test = trace_exits(model, track(test_windows, "halting: test"), rules, num_loops)
    results = [
        evaluate_halting(test, calibrate(calibration, rule, target, level)) for level in levels for rule in rules
    ]
    timed = [r.rule for r in (results if time_all else best_savers(results))]
    windows = list(windows_of(model, test_windows, facts_of(model).padding))
    ids, real = torch.cat([w.inputs for w in windows]), torch.cat([w.real for w in windows])
    times = [
        time
        for size in (track(batch_sizes, "halting: times") if timed else ())
        for some in [max(size, FEWEST_TIMED)]
        for time in time_halting(model, ids[:some], timed, size, repeats, real[:some])
    ]
    return plain(
        {
            "target": str(target),
            "num_loops": test.num_loops,
            "calibration_windows": calibration.windows,
            "test_windows": test.windows,
            "oracle": {level: asdict(oracle(test, target, level)) for level in levels},
            "results": [result.to_dict() for result in results],
            "times": [time.to_dict() for time in times],
        }
    )


def best_savers(results: Sequence[HaltingResult]) -> list[HaltingResult]:
    """Return the result of each level with the fewest executed loops among those that keep their target."""
    kept = [result for result in results if result.possible and result.kept]
    levels = dict.fromkeys(result.rule.level for result in kept)
    return [min((r for r in kept if r.rule.level == level), key=lambda r: r.executed_loops.value) for level in levels]
