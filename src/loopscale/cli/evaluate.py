"""Say how good every exit of looped models is, what it costs, and when it is safe to stop early.

Prints the depth curve of each MODEL (also past the trained depth), the frontier of quality against compute and
throughput with several models in one table, and with --halting the rules that stop early, calibrated on every second
window and reported on the others.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.progress import track
from torch import Tensor

from loopscale.batches import Batch, inputs_and_labels
from loopscale.cli.outputs import check_file, check_folder, write_result
from loopscale.cli.parser import Parser
from loopscale.cli.subject import add_model_arguments, add_window_arguments, load_subject, load_windows
from loopscale.data import Data, batches
from loopscale.environment import environment
from loopscale.errors import InputError, unknown
from loopscale.evaluate import (
    RULES,
    CalibratedRule,
    DepthCurve,
    FrontierPoint,
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
    measure_speeds,
    rule_named,
    run_halting,
    sliding_windows,
    token_flops,
)
from loopscale.evaluate.fingerprint import fingerprint
from loopscale.evaluate.frontier import points_table
from loopscale.evaluate.tables import (
    depth_table,
    difference_table,
    frontier_table,
    halting_table,
    halting_time_table,
)
from loopscale.files import plain
from loopscale.stepping import Looped
from loopscale.study.published import points_129m

PIPE_WIDTH = 120  # of tables that go to a file
LEVELS: tuple[Level, ...] = ("sequence", "token")
T = TypeVar("T")


def add_arguments(parser: Parser) -> None:
    """Add models, corpus, depths, halting and where to write."""
    parser.add_argument("models", type=str, nargs="+", help="folders or hub ids of looped models")
    add_window_arguments(parser)
    parser.add_argument("--stride", type=int | None, help="score by sliding windows, this many new tokens each")
    parser.add_argument("--limit", type=int, default=256, help="windows of validation text to measure on, 0 for all")
    parser.add_argument("--batch_size", type=int, default=16, help="windows at a time; memory grows with it")
    parser.add_argument("--max_loops", type=int | None, help="depth of the curve (default: 3 times the trained depth)")
    parser.add_argument("--speed_batch_sizes", type=int, nargs="+", default=[1, 32], help="where exits are timed")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each timing; the median counts")
    parser.add_argument("--halting", type=str, nargs="+", default=[], help=f"rules, or all: {', '.join(RULES)}")
    parser.add_argument("--level", type=str | None, help="what stops: sequence or token (default: both)")
    parser.add_argument("--relative_perplexity", type=float | None, help="target, against full depth (default: 1.01)")
    parser.add_argument("--mean_loops", type=float | None, help="target of halting instead: mean selected loops")
    parser.add_argument("--save_rules", type=str | None, help="write the calibrated rules into this folder")
    parser.add_argument("--reference", type=bool, default=False, help="add the paper's 129M exits to the frontier")
    add_model_arguments(parser)
    parser.add_argument("--json", type=str | None, help="write every figure to this file")
    parser.add_argument("--figures", type=str | None, help="draw into this folder")


@dataclass(frozen=True)
class Subject:
    """One model with the windows it is measured on."""

    label: str
    model: Looped
    windows: Sequence[Batch]
    described: str
    bytes_per_token: float


def run(args: Namespace) -> int:
    """Measure every model, print the tables and write what was asked for."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    rules = halting_rules(args.halting)
    if args.level not in (*LEVELS, "both", None):
        raise unknown("halting level", args.level, (*LEVELS, "both"))
    sizes = sorted(set(args.speed_batch_sizes))
    if sizes[0] < 1 or args.repeats < 1:
        raise InputError("--speed_batch_sizes and --repeats must be at least 1.")
    target = _target(args)
    check_file("--json", args.json)
    check_folder("--figures", args.figures)
    check_folder("--save_rules", args.save_rules)
    subjects = [_subject(args, name, label) for name, label in zip(args.models, labels(args.models), strict=True)]
    for subject in subjects if rules else ():
        _rules_for(args, subject, rules)
    curves = {subject.label: _curves(args, subject) for subject in subjects}
    speeds = _speeds(subjects, curves, sizes, args.repeats)
    found: dict[str, Any] = {"environment": environment(), "corpus": args.corpus, "models": {}}
    measured: dict[str, Measured] = {}
    for subject in subjects:
        own = {size: some[subject.label] for size, some in speeds.items()}
        flops = token_flops(subject.model, _inputs(subject)[:1])
        description: dict[str, Any] = {"speeds": [speed.to_dict() for some in own.values() for speed in some]}
        description["depth"] = {}
        for reading, curve in curves[subject.label].items():
            label = subject.label if reading == "trained" else f"{subject.label} ({reading})"
            measured[label] = Measured(curve, flops, own[max(own)])
            description["depth"][reading] = describe_depth(measured[label])
            console.print(depth_table(f"{label}, {subject.described}", measured[label], own), "")
        found["models"][subject.label] = description
    found["frontier"] = _frontier(args, measured, console)
    for subject in subjects if rules else ():
        found["models"][subject.label]["halting"] = _halting(args, subject, rules, target, console)
    _write(args, found, measured)
    return 0


def halting_rules(names: Sequence[str]) -> list[HaltingRule]:
    """Return the rules of these names; `all` is every rule."""
    if "all" in names and len(names) > 1:
        raise InputError("--halting all is every rule: name none beside it.")
    if len(set(names)) < len(names):
        raise InputError("the same halting rule is given twice: name each once.")
    return list(RULES.values()) if list(names) == ["all"] else [rule_named(name) for name in names]


def _target(args: Namespace) -> Target:
    """Return what halting is to keep. Raises `InputError` for options of halting where there is none."""
    if not args.halting:
        for name in ("level", "relative_perplexity", "mean_loops", "save_rules"):
            if args[name] is not None:
                raise InputError(f"--{name} does nothing without --halting: name rules, or all.")
    if args.relative_perplexity is not None and args.mean_loops is not None:
        raise InputError("--relative_perplexity and --mean_loops are two targets: give one.")
    if args.mean_loops is not None:
        return MeanLoops(args.mean_loops)
    return RelativePerplexity() if args.relative_perplexity is None else RelativePerplexity(args.relative_perplexity)


def _rules_for(args: Namespace, subject: Subject, rules: Sequence[HaltingRule]) -> Sequence[HaltingRule]:
    """Return the rules to calibrate on a model. Raises `InputError` where one does not fit, or windows are too few."""
    windows = len(_inputs(subject))
    if windows < 4:
        raise InputError(f"halting needs at least 4 windows, half of them to calibrate on, not {windows}.")
    fitting = [rule for rule in rules if rule.applies_to(subject.model)]
    if args.halting != ["all"] and len(fitting) < len(rules):
        misfit = next(rule.name for rule in rules if rule not in fitting)
        raise InputError(f"the halting rule '{misfit}' does not fit {subject.label}: it has no exit gate.")
    return fitting


def labels(names: Sequence[str]) -> list[str]:
    """Return short names: what is not common to all paths, and the whole name where that is nothing."""
    parts = [Path(name).parts for name in names]
    if len({Path(name).resolve() for name in names}) < len(parts):
        raise InputError("the same model is given twice: name each once.")
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def _subject(args: Namespace, name: str, label: str) -> Subject:
    model = load_subject(args, name)
    data, length = load_windows(args, name, model)
    windows, described = _windows(args, data, length)
    return Subject(label, model, windows, described, data.bytes_per_token)


def _windows(args: Namespace, data: Data, length: int) -> tuple[list[Batch], str]:
    """Return the validation windows, spread over the text or sliding from its start, and what they are in words."""
    if args.limit < 0 or args.batch_size < 1:
        raise InputError(f"--limit {args.limit}, --batch_size {args.batch_size}: give at least 0 and at least 1.")
    if args.stride is not None:
        ids = torch.from_numpy(data.valid.tokens.ids.astype("int64"))
        kept = ids[: (args.limit - 1) * args.stride + length + 1] if args.limit else ids
        sliding: list[Batch] = list(sliding_windows(kept, length, args.stride, args.batch_size))
        return sliding, f"sliding windows of {length} with stride {args.stride} over {len(kept):,} tokens"
    wanted = min(args.limit or len(data.valid), len(data.valid))
    rows = torch.cat(list(batches(data.valid, 1, limit=wanted)))
    return list(rows.split(args.batch_size)), f"{wanted} of {len(data.valid):,} windows of {length}"


def _curves(args: Namespace, subject: Subject) -> dict[str, DepthCurve]:
    windows = _progress(subject.label)(subject.windows, "depth curve")
    return depth_curves(subject.model, windows, args.max_loops, subject.bytes_per_token)


def _speeds(
    subjects: Sequence[Subject], curves: dict[str, dict[str, DepthCurve]], sizes: Sequence[int], repeats: int
) -> dict[int, dict[str, tuple[Speed, ...]]]:
    """Time the exits up to the trained depth, of all models together, at every batch size there are windows for."""
    models = {subject.label: subject.model for subject in subjects}
    inputs = {subject.label: _inputs(subject) for subject in subjects}
    exits = {
        label: range(1, min(len(found["trained"]), found["trained"].trained_loops) + 1)
        for label, found in curves.items()
    }
    fewest = min(len(ids) for ids in inputs.values())
    fitting = [size for size in sizes if size <= fewest] or [fewest]
    return {
        size: measure_speeds(models, {label: ids[:size] for label, ids in inputs.items()}, exits, repeats)
        for size in _progress("all models")(fitting, "timing exits")
    }


def _inputs(subject: Subject) -> Tensor:
    return torch.cat([inputs_and_labels(batch)[0] for batch in subject.windows])


def _halting(
    args: Namespace, subject: Subject, rules: Sequence[HaltingRule], target: Target, console: Console
) -> dict[str, Any]:
    pieces = [inputs_and_labels(batch) for batch in subject.windows]
    inputs, targets = torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])

    def split(start: int) -> list[Batch]:
        rows = zip(inputs[start::2].split(args.batch_size), targets[start::2].split(args.batch_size), strict=True)
        return list(rows)

    report = run_halting(
        subject.model,
        split(0),
        split(1),
        target,
        _rules_for(args, subject, rules),
        [level for level in LEVELS if args.level in (level, "both", None)],
        sorted(set(args.speed_batch_sizes)),
        repeats=args.repeats,
        track=_progress(subject.label),
    )
    console.print(halting_table(f"{subject.label}, halting", report), "")
    console.print(halting_time_table(f"{subject.label}, halting by the clock", report), "")
    if args.save_rules:
        _save_rules(Path(args.save_rules), subject, report)
    return report


def _save_rules(folder: Path, subject: Subject, report: dict[str, Any]) -> None:
    for row in report["results"]:
        rule = CalibratedRule.from_dict({**row["rule"], "model": fingerprint(subject.model)})
        rule.save(folder / f"{subject.label.replace('/', '-')}-{rule.level}-{rule.rule.name}.json")


def _frontier(args: Namespace, measured: dict[str, Measured], console: Console) -> dict[str, Any]:
    points = frontier(measured, reference(args))
    console.print(frontier_table("frontier", points), "")
    base, *others = measured
    found = [d for other in others for kind in ("flops", "seconds") for d in differences(measured, other, base, kind)]
    if found:
        console.print(difference_table("cross-entropy at equal cost (negative: better than the reference)", found), "")
    return {"points": points_table(points), "differences": [asdict(d) for d in found]}


def reference(args: Namespace) -> list[FrontierPoint]:
    """Return the published exits if they were asked for."""
    return list(points_129m()) if args.reference else []


def _write(args: Namespace, found: dict[str, Any], measured: dict[str, Measured]) -> None:
    write_result(args.json, plain(found))
    if args.figures:
        _figures(Path(args.figures), found, measured, reference(args))


def _figures(
    folder: Path, found: dict[str, Any], measured: dict[str, Measured], published: Sequence[FrontierPoint]
) -> None:
    from loopscale.evaluate.figures import depth_figure, frontier_figure, halting_figure, write_figure  # matplotlib

    write_figure(depth_figure({name: one.curve for name, one in measured.items()}), folder, "depth")
    write_figure(frontier_figure(frontier(measured, published)), folder, "frontier")
    for label, description in found["models"].items():
        if "halting" in description:
            figure = halting_figure(label, description["halting"])
            write_figure(figure, folder, f"halting-{label.replace('/', '-')}")


def _progress(label: str) -> Any:
    """Return a progress bar with time left on stderr, silent where nobody watches."""

    def show(sequence: Sequence[T], description: str) -> Iterable[T]:
        bar = partial(track, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        return bar(sequence, f"{label}: {description}")

    return show
