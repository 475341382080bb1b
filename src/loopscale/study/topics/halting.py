"""Halting: what rules that stop early save at a kept quality, against the choice of an oracle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from loopscale.data import Data
from loopscale.display import Column, Table, fixed, number, percent
from loopscale.evaluate import Interval, OraclePoint, run_halting
from loopscale.model import LoopedForCausalLM
from loopscale.storage import from_json, plain

from ..results import Results
from ..topic import Topic, valid_batches
from .depth import NOISY, named_run

BATCHES = 3  # for calibration, and as many others for the test
BATCH_SIZE = 32


@final
@dataclass(frozen=True)
class RuleRecord:
    """A calibrated rule: a threshold of None never stops."""

    rule: str
    threshold: float | None
    level: str
    num_loops: int
    model: str | None = None


@final
@dataclass(frozen=True)
class QualityRecord:
    """What a rule does on the test windows, with 95% intervals over windows."""

    rule: RuleRecord
    target: str
    possible: bool
    note: str
    relative_perplexity: Interval
    selected_loops: Interval
    executed_loops: Interval
    kept: bool
    windows: int
    tokens: int


@final
@dataclass(frozen=True)
class TimeRecord:
    """What a rule takes by the clock, per window, and saves against full depth."""

    rule: RuleRecord
    batch_size: int
    windows: int
    selected_loops: float
    executed_loops: float
    seconds: float
    full_seconds: float
    loop_saving: float
    time_saving: float
    repeats: int


@final
@dataclass(frozen=True)
class HaltingRecord:
    """Every halting rule of one trained model on test windows, the oracle's bound by level, and times of the best."""

    target: str
    num_loops: int
    calibration_windows: int
    test_windows: int
    oracle: Mapping[str, OraclePoint]
    results: tuple[QualityRecord, ...]
    times: tuple[TimeRecord, ...]


def measure_halting(model: LoopedForCausalLM, data: Data) -> HaltingRecord:
    """Calibrate every rule on every other batch of the valid split, and test it on those between."""
    windows = list(valid_batches(model, data, BATCH_SIZE, 2 * BATCHES))
    return from_json(plain(run_halting(model, windows[::2], windows[1::2])), HaltingRecord, "the halting")


def halting(results: Results) -> Table | None:
    """The rule of each level that saves the most loops and keeps its target, one row per run and level."""
    rows = tuple(
        (named_run(results, name, run), level, *_cells(record, level))
        for name, condition in results.conditions.items()
        for run in condition.runs
        if (record := TOPIC.of(run))
        for level in record.oracle
    )
    if not rows:
        return None
    figures = ("selected", "executed", "relative perplexity", "loops saved", "time saved", "oracle")
    return Table(
        name="halting",
        title="Halting: loops and time saved at a kept quality",
        caption="The rule that runs the fewest loops among those that keep their target: a perplexity at most 1.01 "
        "times that of full depth, calibrated on some windows and reported on others, with 95% intervals over windows. "
        "Selected: mean exit of a token; executed: loops that ran for it; time: of whole batches against full depth. "
        f"Oracle: selected loops of a choice that knows the labels, the bound. {NOISY}",
        columns=(
            *(Column(name) for name in ("condition", "per", "rule")),
            *(Column(name, numeric=True) for name in figures),
        ),
        rows=rows,
    )


def _cells(record: HaltingRecord, level: str) -> tuple[str, ...]:
    """Return rule, loops, quality, savings and bound of the rule that was timed: the best one that kept its target."""
    bound = number(record.oracle[level].selected_loops)
    for time in record.times:
        found = next((row for row in record.results if row.rule == time.rule), None)
        if time.rule.level == level and found is not None:
            return (
                time.rule.rule,
                fixed(found.selected_loops.value, 2),
                fixed(found.executed_loops.value, 2),
                _interval(found.relative_perplexity),
                percent(time.loop_saving),
                percent(time.time_saving),
                bound,
            )
    return ("none keeps it", *("–" for _ in range(5)), bound)


def _interval(found: Interval) -> str:
    return f"{fixed(found.value, 4)} [{fixed(found.low, 4)}, {fixed(found.high, 4)}]"


TOPIC: Topic[HaltingRecord] = Topic(
    name="halting",
    heading="Depth and halting",
    place=42,
    record=HaltingRecord,
    measure=measure_halting,
    tables=(halting,),
)
