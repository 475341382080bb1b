"""Comparison of halting rules, calibrated on one split and measured on another, and the report of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch

from loopscale.batches import Batches, windows_of
from loopscale.display import Track, untracked
from loopscale.facts import facts_of
from loopscale.halting.bound import OraclePoint, oracle
from loopscale.halting.calibrated import CalibratedRule, StoredRule
from loopscale.halting.calibration import HaltingResult, calibrate, evaluate_halting
from loopscale.halting.halted_run import HaltingTime, time_halting
from loopscale.halting.rules import RULES, HaltingRule, Level
from loopscale.halting.targets import RelativePerplexity, Target
from loopscale.halting.trace import trace_exits
from loopscale.processes import first_alone
from loopscale.stepping import Looped

Result = HaltingResult[CalibratedRule]
Time = HaltingTime[CalibratedRule]
FEWEST_TIMED = 8  # windows


@final
@dataclass(frozen=True)
class HaltingReport:
    """What rules do under one target on test windows, the oracle's bound by level, and what timed rules take."""

    target: str
    num_loops: int
    calibration_windows: int
    test_windows: int
    oracle: Mapping[str, OraclePoint]
    results: tuple[HaltingResult[StoredRule], ...]
    times: tuple[HaltingTime[StoredRule], ...]


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
) -> HaltingReport:
    """Calibrate rules on one split and return what they do on another.

    Defaults: relative perplexity 1.01, every rule that fits the model, full depth the model's own. `results` has the
    best fixed exit under the target first, which every rule is to beat, and then a row per level and rule: the
    calibrated rule, relative perplexity, selected and executed loops with their intervals on the test windows; `oracle`
    is the bound per level. Wall time is taken at each of the `batch_sizes`, on one batch of test windows but at least
    8, of the fixed exit and of all rules (`time_all`) or the one of each level that runs the fewest loops and keeps the
    target, with what it saves over the fixed exit.
    """
    target = RelativePerplexity() if target is None else target
    given = [rule for rule in RULES.values() if rule.applies_to(model)] if rules is None else rules
    fixed, rules = RULES["fixed_exit"], [rule for rule in given if rule.name != "fixed_exit"]
    test_windows = list(test_batches)
    calibration = trace_exits(
        model, track(list(calibration_batches), "halting: calibration"), [fixed, *rules], num_loops
    )
    test = trace_exits(model, track(test_windows, "halting: test"), [fixed, *rules], num_loops)
    base = evaluate_halting(test, calibrate(calibration, fixed, target, levels[0]))
    results = [
        evaluate_halting(test, calibrate(calibration, rule, target, level)) for level in levels for rule in rules
    ]
    timed = [base.rule, *(r.rule for r in (results if time_all else best_savers(results)))]
    windows = list(windows_of(model, test_windows, facts_of(model).padding))
    ids, real = torch.cat([w.inputs for w in windows]), torch.cat([w.real for w in windows])
    times = [
        time
        for size in track(batch_sizes, "halting: times")
        for some in [max(size, FEWEST_TIMED)]
        for time in _times(model, ids[:some], timed, size, repeats, real[:some])
    ]
    return HaltingReport(
        target=str(target),
        num_loops=test.num_loops,
        calibration_windows=calibration.windows,
        test_windows=test.windows,
        oracle={level: oracle(test, target, level) for level in levels},
        results=tuple(_stored(result) for result in (base, *results)),
        times=tuple(_stored(time, **_over_fixed(time, times)) for time in times),
    )


def _times(model: Looped | Any, *args: Any) -> tuple[Time, ...]:
    return first_alone(lambda: time_halting(model, *args))


def _over_fixed(time: Time, times: Sequence[Time]) -> dict[str, float]:
    """Return what a rule saves of the loops and of the seconds that the fixed exit takes at the same batch size."""
    fixed = next(row for row in times if row.batch_size == time.batch_size and row.rule.rule.name == "fixed_exit")
    return {
        "loop_saving_over_fixed": 1 - time.executed_loops / fixed.executed_loops,
        "time_saving_over_fixed": 1 - time.seconds / fixed.seconds,
    }


def best_savers(results: Sequence[Result]) -> list[Result]:
    """Return the result of each level with the fewest executed loops among those that keep their target."""
    kept = [result for result in results if result.possible and result.kept]
    levels = dict.fromkeys(result.rule.level for result in kept)
    return [min((r for r in kept if r.rule.level == level), key=lambda r: r.executed_loops.value) for level in levels]


def _stored(found: Any, **more: Any) -> Any:
    """Return a result or a time with its rule as files hold it."""
    return replace(found, rule=found.rule.stored(), **more)
