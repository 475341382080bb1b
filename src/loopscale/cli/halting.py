"""Halting as `evaluate` is asked for it: rules, levels, target, and where the calibrated rules go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.console import Console

from loopscale.batches import Batch, inputs_and_labels
from loopscale.cli.measured_subject import Subject, progress
from loopscale.cli.parser import Parser
from loopscale.errors import InputError, unknown
from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    HaltingRule,
    Level,
    MeanLoops,
    RelativePerplexity,
    Target,
    rule_named,
    run_halting,
)
from loopscale.evaluate.fingerprint import fingerprint
from loopscale.evaluate.tables import halting_table, halting_time_table

LEVELS: tuple[Level, ...] = ("sequence", "token")
FEWEST_WINDOWS = 4  # half of them to calibrate on


def add_halting_arguments(parser: Parser) -> None:
    """Add the rules, what stops, the target, and where to keep what was calibrated."""
    parser.add_argument("--halting", type=str, nargs="+", default=[], help=f"rules, or all: {', '.join(RULES)}")
    parser.add_argument("--level", type=str | None, help="what stops: sequence, token or both (the default)")
    parser.add_argument("--relative_perplexity", type=float | None, help="target, against full depth (default: 1.01)")
    parser.add_argument("--mean_loops", type=float | None, help="target of halting instead: mean selected loops")
    parser.add_argument("--save_rules", type=str | None, help="write the calibrated rules into this folder")


@dataclass(frozen=True)
class Halting:
    """What was asked for. `every_rule`: all that fit a model, instead of those that are named."""

    rules: Sequence[HaltingRule]
    every_rule: bool
    levels: Sequence[Level]
    target: Target
    batch_size: int
    speed_batch_sizes: Sequence[int]
    repeats: int
    save_to: Path | None

    def rules_for(self, subject: Subject) -> Sequence[HaltingRule]:
        """Return the rules to calibrate on a model. Raises `InputError` where one does not fit, or windows are few."""
        windows = len(subject.inputs)
        if windows < FEWEST_WINDOWS:
            raise InputError(
                f"halting needs at least {FEWEST_WINDOWS} windows, half of them to calibrate on, not {windows}."
            )
        fitting = [rule for rule in self.rules if rule.applies_to(subject.model)]
        if not self.every_rule and len(fitting) < len(self.rules):
            misfit = next(rule.name for rule in self.rules if rule not in fitting)
            raise InputError(f"the halting rule '{misfit}' does not fit {subject.label}: it has no exit gate.")
        return fitting

    def report(self, subject: Subject, rules: Sequence[HaltingRule], console: Console) -> dict[str, Any]:
        """Calibrate on every second window, report on the others, print, and save."""
        pieces = [inputs_and_labels(batch) for batch in subject.windows]
        inputs, targets = torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])

        def split(start: int) -> list[Batch]:
            halves = inputs[start::2].split(self.batch_size), targets[start::2].split(self.batch_size)
            return list(zip(*halves, strict=True))

        report = run_halting(
            subject.model,
            split(0),
            split(1),
            self.target,
            rules,
            self.levels,
            self.speed_batch_sizes,
            repeats=self.repeats,
            track=progress(subject.label),
        )
        console.print(halting_table(f"{subject.label}, halting", report), "")
        console.print(halting_time_table(f"{subject.label}, halting by the clock", report), "")
        if self.save_to is not None:
            _save_rules(self.save_to, subject, report)
        return report


def halting_asked(args: Namespace) -> Halting | None:
    """Return what was asked for, None without rules. Raises `InputError` for options that do not go together."""
    if not args.halting:
        for name in ("relative_perplexity", "mean_loops", "save_rules", "level"):
            if args[name] is not None:
                raise InputError(f"--{name} does nothing without --halting: name rules, or all.")
        return None
    if args.level not in (*LEVELS, "both", None):
        raise unknown("halting level", args.level, (*LEVELS, "both"))
    return Halting(
        _rules(args.halting),
        args.halting == ["all"],
        [level for level in LEVELS if args.level in (level, "both", None)],
        _target(args),
        args.batch_size,
        sorted(set(args.speed_batch_sizes)),
        args.repeats,
        None if args.save_rules is None else Path(args.save_rules),
    )


def _rules(names: Sequence[str]) -> list[HaltingRule]:
    """Return the rules of these names; `all` is every rule."""
    if "all" in names and len(names) > 1:
        raise InputError("--halting all is every rule: name none beside it.")
    if len(set(names)) < len(names):
        raise InputError("the same halting rule is given twice: name each once.")
    return list(RULES.values()) if list(names) == ["all"] else [rule_named(name) for name in names]


def _target(args: Namespace) -> Target:
    """Return what halting is to keep."""
    if args.relative_perplexity is not None and args.mean_loops is not None:
        raise InputError("--relative_perplexity and --mean_loops are two targets: give one.")
    if args.mean_loops is not None:
        return MeanLoops(args.mean_loops)
    return RelativePerplexity() if args.relative_perplexity is None else RelativePerplexity(args.relative_perplexity)


def _save_rules(folder: Path, subject: Subject, report: dict[str, Any]) -> None:
    model = fingerprint(subject.model)
    for row in report["results"]:
        rule = CalibratedRule.from_dict({**row["rule"], "model": model})
        rule.save(folder / f"{subject.label.replace('/', '-')}-{rule.level}-{rule.rule.name}.json")
