"""Halting: what rules that stop early save at a kept quality, against a fixed exit and the choice of an oracle."""

import math
from collections.abc import Sequence
from statistics import fmean

from loopscale.data import Data
from loopscale.display import Column, Table, fixed, number, percent
from loopscale.evaluate import Interval
from loopscale.halting import HaltingReport, run_halting
from loopscale.halting.display import rule_words
from loopscale.model import LoopedForCausalLM

from ..results import Results, Run
from ..topic import Topic, ratio_of_perplexities, valid_batches
from .audit import scale_verdict
from .depth import NOISY, named_run

BATCHES = 3  # for calibration, and as many others for the test
BATCH_SIZE = 32
TARGET = 1.01  # perplexity that is kept, over full depth's
FIXED = "fixed_exit"


def measure_halting(model: LoopedForCausalLM, data: Data) -> HaltingReport:
    """Calibrate every rule on every other batch of the valid split, and test it on those between."""
    windows = list(valid_batches(model, data, BATCH_SIZE, 2 * BATCHES))
    return run_halting(model, windows[::2], windows[1::2])


def halting(results: Results) -> Table | None:
    """The best fixed exit of every run, and then the rule of each level that runs the fewest loops, against it."""
    rows = tuple(
        (named_run(results, name, run), *cells)
        for name, condition in results.conditions.items()
        for run in condition.runs
        if (record := TOPIC.of(run))
        for cells in (_fixed_cells(run, record), *(_cells(run, record, level) for level in record.oracle))
    )
    if not rows:
        return None
    figures = ("selected", "executed", "relative perplexity", "loops saved", "time saved", "oracle")
    return Table(
        name="halting",
        title="Halting: what rules save over the best fixed exit, at a kept quality",
        caption="The rule that runs the fewest loops among those that keep their target: a perplexity at most 1.01 "
        "times that of full depth, calibrated on some windows and reported on others, with 95% intervals over windows. "
        "First, under the same target, the best fixed exit, whose savings are over full depth; those of the rules are "
        "over it, and a rule that stops every token there is no rule. Selected: mean exit of a token; executed: loops "
        f"that ran for it; time: of whole batches. Oracle: selected loops of a choice that knows the labels, the "
        f"bound. In older studies the fixed exit is read off the depth curve. {NOISY}",
        columns=(
            *(Column(name) for name in ("condition", "per", "rule")),
            *(Column(name, numeric=True) for name in figures),
        ),
        rows=rows,
    )


def halting_by_scale(results: Results) -> Table | None:
    """Halting of blind and of controlled models: loops of the best fixed exit, of the best rules, of the oracle."""
    rows = [(said, *_of_scale(pairs)) for said, pairs in _by_scale(results).items()]
    if not rows:
        return None
    columns = ("models", "full depth", "best fixed exit", "best rule", "fewer loops than fixed", "oracle")
    return Table(
        name="halting-scale",
        title="Halting with and without a calibrated rule, by what the loss sees of the scale",
        caption="Means over the models: loops at a perplexity at most 1.01 times that of full depth, with the best "
        "fixed exit and with the calibrated rule of each model that runs the fewest (where none keeps the target, full "
        "depth); in how many models that rule runs fewer than the fixed exit; and the tokens' bound, of a choice that "
        "knows the labels.",
        columns=(Column("scale"), *(Column(name, numeric=True) for name in columns)),
        rows=tuple(rows),
    )


def _by_scale(results: Results) -> dict[str, list[tuple[Run, HaltingReport]]]:
    found: dict[str, list[tuple[Run, HaltingReport]]] = {}
    for run in results.all_runs:
        record, verdict = TOPIC.of(run), scale_verdict(run)
        if record and verdict:
            found.setdefault(verdict.replace("_", " "), []).append((run, record))
    return dict(sorted(found.items()))


def _of_scale(pairs: Sequence[tuple[Run, HaltingReport]]) -> list[str]:
    fixed_loops = [fixed_exit(run, record)[0] for run, record in pairs]
    ruled = [best_rule(record) for _, record in pairs]
    bounds = [min(bound.selected_loops for bound in record.oracle.values()) for _, record in pairs]
    return [
        str(len(pairs)),
        fixed(fmean(record.num_loops for _, record in pairs), 2),
        fixed(fmean(fixed_loops), 2),
        fixed(fmean(ruled), 2),
        str(sum(loops < base for loops, base in zip(ruled, fixed_loops, strict=True))),
        fixed(fmean(bounds), 2),
    ]


def best_rule(record: HaltingReport) -> float:
    """Return the fewest loops that a calibrated rule runs at the kept quality; full depth where none keeps it."""
    timed = (time.executed_loops for time in record.times if time.rule.rule != FIXED)
    return min(timed, default=float(record.num_loops))


def fixed_exit(run: Run, record: HaltingReport) -> tuple[int, float | None]:
    """Return the best fixed exit (from 1) under the target, and its perplexity over full depth's.

    A study from before fixed exits were calibrated has it by its depth curve: the first exit within 1% of full depth.
    """
    best = record.results[0] if record.results and record.results[0].rule.rule == FIXED else None
    if best is not None and math.isfinite(best.executed_loops.value):
        return round(best.executed_loops.value), best.relative_perplexity.value
    last = run.cross_entropy[-1]
    first = next((k for k, nats in enumerate(run.cross_entropy, 1) if nats - last <= math.log(TARGET)), len(run.norm))
    return first, ratio_of_perplexities(run.cross_entropy[first - 1] - last)


def _fixed_cells(run: Run, record: HaltingReport) -> tuple[str, ...]:
    loops, quality = fixed_exit(run, record)
    found = next((row for row in record.results if row.rule.rule == FIXED), None)
    time = next((row for row in record.times if row.rule.rule == FIXED), None)
    return (
        "any",
        f"exit {loops}, fixed",
        fixed(float(loops), 2),
        fixed(float(loops), 2),
        _interval(found.relative_perplexity) if found else fixed(quality, 4),
        percent(1 - loops / record.num_loops),
        percent(time.time_saving) if time else "–",
        "–",
    )


def _cells(run: Run, record: HaltingReport, level: str) -> tuple[str, ...]:
    """Return level, rule, loops, quality, savings and bound of the rule that was timed: the best that kept it."""
    bound, base = number(record.oracle[level].selected_loops), fixed_exit(run, record)[0]
    for time in record.times:
        found = next((row for row in record.results if row.rule == time.rule), None)
        if time.rule.level == level and found is not None and time.rule.rule != FIXED:
            selected = found.selected_loops
            words = rule_words(time.rule.rule, selected, time.rule.first_exit)
            over = time.time_saving_over_fixed
            return (
                level,
                words,
                fixed(selected.value, 2),
                fixed(found.executed_loops.value, 2),
                _interval(found.relative_perplexity),
                percent(1 - time.executed_loops / base),
                "–" if over is None else percent(over),
                bound,
            )
    return (level, "none keeps it", *("–" for _ in range(5)), bound)


def halting_sentence(results: Results) -> str | None:
    """Say for how many runs and levels a rule beats the best fixed exit."""
    pairs = [
        (time.executed_loops < fixed_exit(run, record)[0], time.rule.level)
        for run in results.all_runs
        if (record := TOPIC.of(run))
        for time in record.times
        if time.rule.rule != FIXED
    ]
    if not pairs:
        return None
    exits = [fixed_exit(run, record)[0] for run in results.all_runs if (record := TOPIC.of(run))]
    earlier, better = sum(loops < results.num_loops for loops in exits), sum(better for better, _ in pairs)
    return (
        f"The halting: at a perplexity within 1% of full depth a fixed earlier exit will do in {earlier} of "
        f"{len(exits)} models; a rule runs fewer loops than the best fixed exit in {better} of {len(pairs)} cases."
    )


def _interval(found: Interval) -> str:
    return f"{fixed(found.value, 4)} [{fixed(found.low, 4)}, {fixed(found.high, 4)}]"


TOPIC: Topic[HaltingReport] = Topic(
    name="halting",
    heading="Depth and halting",
    place=42,
    record=HaltingReport,
    measure=measure_halting,
    tables=(halting, halting_by_scale),
    sentence=halting_sentence,
)
