"""`loopscale evaluate`: depth curves, the frontier, and halting, of one or more models."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.console import Console

from loopscale.batches import Batch, inputs_and_labels
from loopscale.cli.parser import check_outputs
from loopscale.cli.subject import Subject, labels, loaded, measured_subject
from loopscale.display import Table, console, file_name, tracker, write_chart
from loopscale.display.page import PageFigure, PagePart, write_html
from loopscale.errors import InputError, unknown
from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    DepthCurve,
    FrontierPoint,
    HaltingReport,
    HaltingRule,
    Level,
    MeanLoops,
    Measured,
    RelativePerplexity,
    Speed,
    Target,
    depth_curves,
    describe_depth,
    differences,
    frontier,
    measure_precisions,
    measure_speeds,
    rule_named,
    run_halting,
    token_flops,
)
from loopscale.evaluate.display import (
    depth_chart,
    depth_table,
    difference_table,
    frontier_chart,
    frontier_table,
    precision_table,
)
from loopscale.evaluate.exits_page import exits_page
from loopscale.evaluate.fewer_bits import precision_named
from loopscale.evaluate.pareto import points_table
from loopscale.halting.calibrated import fingerprint
from loopscale.halting.display import halting_chart, halting_table, halting_time_table
from loopscale.processes import first_alone, is_first
from loopscale.storage import plain, write_json
from loopscale.study.published import points_129m
from loopscale.system.environment import environment

LEVELS: tuple[Level, ...] = ("sequence", "token")
FEWEST_WINDOWS = 4  # half of them to calibrate on
SAME = ("sha256", "split", "sequence_length", "stride")
OTHER_TEXTS = (
    "note: these models were measured on different texts or windows, each as its run says; name --corpus and "
    "--sequence_length to compare them on the same."
)


def run(args: Namespace) -> int:
    """Measure every model, print the tables and write what was asked for."""
    out = console(quiet=not is_first())
    halting = halting_asked(args)
    wanted = windows_wanted(args)
    precisions = [precision_named(name) for name in args.precision]
    sizes = sorted(set(args.speed_batch_sizes))
    if sizes[0] < 1 or args.repeats < 1:
        raise InputError("--speed_batch_sizes and --repeats must be at least 1.")
    first_alone(lambda: check_outputs(args, "figures", "save_rules"))
    named = list(zip(args.models, labels(args.models), strict=True))
    subjects = loaded(lambda: [measured_subject(args, name, label, wanted, args.stride) for name, label in named])
    rules = {} if halting is None else {subject.label: halting.rules_for(subject) for subject in subjects}
    curves = {subject.label: _curves(args, subject) for subject in subjects}
    speeds = first_alone(lambda: _speeds(subjects, curves, sizes, args.repeats))
    found: dict[str, Any] = {"environment": environment(), "corpus": subjects[0].facts["corpus"], "models": {}}
    measured: dict[str, Measured] = {}
    shown: dict[str, list[Table]] = {"Every exit": []}
    for subject in subjects:
        own = {size: some[subject.label] for size, some in speeds.items()}
        flops = token_flops(subject.model, subject.inputs[:1])
        description: dict[str, Any] = {
            "measured_on": subject.facts,
            "speeds": [speed.to_dict() for some in own.values() for speed in some],
        }
        description["depth"] = {}
        out.print(f"{subject.label}, {subject.described}", soft_wrap=True, highlight=False)
        for reading, curve in curves[subject.label].items():
            label = subject.label if reading == "trained" else f"{subject.label} ({reading})"
            measured[label] = Measured(curve, flops, own[max(own)])
            description["depth"][reading] = describe_depth(measured[label])
            shown["Every exit"].append(depth_table(label, measured[label], own))
            out.print(shown["Every exit"][-1], "")
        if precisions:
            reports = measure_precisions(subject.model, subject.windows, precisions)
            description["precision"] = plain(reports)
            in_others = precision_table(f"{subject.label}, in other precisions", reports)
            shown.setdefault("Other precisions", []).append(in_others)
            out.print(in_others, "")
        found["models"][subject.label] = description
    alike = len({tuple(subject.facts[key] for key in SAME) for subject in subjects}) == 1
    if not alike:
        out.print(OTHER_TEXTS, "", sep="\n", soft_wrap=True)
    points = frontier(measured, points_129m() if args.reference else [])
    shown["At equal cost"], found["frontier"] = _frontier(points, measured, out)
    if halting is not None:
        for subject in subjects:
            found["models"][subject.label]["halting"] = halting.report(subject, rules[subject.label], out)

    def write() -> None:
        if args.json:
            write_json(Path(args.json), plain(found))
        if args.figures:
            _figures(Path(args.figures), found, measured, points)
        if args.report:
            parts = [PagePart(heading, tables=tuple(tables)) for heading, tables in shown.items()]
            texts = {subject.label: subject.facts for subject in subjects}
            page = exits_page(measured, points, [*parts, *_halting_parts(found)], found["environment"], texts, alike)
            write_html(Path(args.report), page)
            out.print(f"wrote {args.report}: open it in a browser", highlight=False, soft_wrap=True)

    first_alone(write)
    return 0


def windows_wanted(args: Namespace) -> int | None:
    """Return how many windows were asked for, None for all."""
    if args.limit is None:
        return None if args.windows == "all" else int(args.windows)
    if args.limit < 0:
        raise InputError(f"--limit {args.limit}: give at least 0.")
    return args.limit or None


def _curves(args: Namespace, subject: Subject) -> dict[str, DepthCurve]:
    windows = tracker(subject.label, not is_first())(subject.windows, "depth curve")
    return depth_curves(subject.model, windows, args.max_loops, subject.bytes_per_token)


def _speeds(
    subjects: Sequence[Subject], curves: dict[str, dict[str, DepthCurve]], sizes: Sequence[int], repeats: int
) -> dict[int, dict[str, tuple[Speed, ...]]]:
    """Time the exits up to the trained depth, of all models together, at every batch size there are windows for."""
    models = {subject.label: subject.model for subject in subjects}
    inputs = {subject.label: subject.inputs for subject in subjects}
    exits = {
        label: range(1, min(len(found["trained"]), found["trained"].trained_loops) + 1)
        for label, found in curves.items()
    }
    fewest = min(len(ids) for ids in inputs.values())
    fitting = [size for size in sizes if size <= fewest] or [fewest]
    return {
        size: measure_speeds(models, {label: ids[:size] for label, ids in inputs.items()}, exits, repeats)
        for size in tracker("all models")(fitting, "timing exits")
    }


def _frontier(
    points: Sequence[FrontierPoint], measured: dict[str, Measured], out: Console
) -> tuple[list[Table], dict[str, Any]]:
    """Print the frontier and who is better at equal cost; return their tables, and what a file keeps of them."""
    base, *others = measured
    found = [d for other in others for kind in ("flops", "seconds") for d in differences(measured, other, base, kind)]
    tables = [frontier_table("frontier", points)]
    if found:
        tables.append(difference_table("cross-entropy at equal cost (negative: better than the reference)", found))
    for table in tables:
        out.print(table, "")
    return tables, {"points": points_table(points), "differences": [asdict(d) for d in found]}


def _halting_parts(found: dict[str, Any]) -> list[PagePart]:
    """Return a part of the page for the rules of every model."""
    parts = []
    for i, (label, description) in enumerate(found["models"].items()):
        if (report := description.get("halting")) is not None:
            caption = "Relative perplexity against selected loops a token, with 95% intervals, and the oracle's bound."
            figure = PageFigure(f"halting-{i}", f"{label}: rules that stop early", caption, halting_chart(report))
            tables = halting_table(f"{label}, halting", report), halting_time_table(f"{label}, by the clock", report)
            parts.append(PagePart(f"Halting of {label}", (figure,), tables))
    return parts


def _figures(
    folder: Path, found: dict[str, Any], measured: dict[str, Measured], points: Sequence[FrontierPoint]
) -> None:
    write_chart(depth_chart({name: one.curve for name, one in measured.items()}), folder / "depth")
    write_chart(frontier_chart(points), folder / "frontier")
    for label, description in found["models"].items():
        if "halting" in description:
            write_chart(halting_chart(description["halting"]), folder / file_name(f"halting-{label}"))


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
            raise next(rule for rule in self.rules if rule not in fitting).misfit(subject.label)
        return fitting

    def report(self, subject: Subject, rules: Sequence[HaltingRule], out: Console) -> HaltingReport:
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
            track=tracker(subject.label, not is_first()),
        )
        out.print(halting_table(f"{subject.label}, halting", report), "")
        out.print(halting_time_table(f"{subject.label}, halting by the clock", report), "")
        if (folder := self.save_to) is not None:
            first_alone(lambda: _save_rules(folder, subject, report))
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


def _save_rules(folder: Path, subject: Subject, report: HaltingReport) -> None:
    model = fingerprint(subject.model)
    for row in report.results:
        rule = CalibratedRule.from_dict({**asdict(row.rule), "model": model})
        rule.save(folder / f"{subject.label.replace('/', '-')}-{rule.level}-{rule.rule.name}.json")
