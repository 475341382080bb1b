"""Say how good every exit of looped models is, what it costs, and when it is safe to stop early.

Prints the depth curve of each MODEL (also past the trained depth), the frontier of quality against compute and
throughput with several models in one table, and with --halting the rules that stop early, calibrated on every second
window and reported on the others.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from loopscale.cli.halting import add_halting_arguments, halting_asked
from loopscale.cli.measured_subject import Subject, labels, measured_subject, progress
from loopscale.cli.outputs import check_outputs
from loopscale.cli.parser import Parser
from loopscale.cli.subject import add_model_arguments, add_window_arguments
from loopscale.environment import environment
from loopscale.errors import InputError
from loopscale.evaluate import (
    DepthCurve,
    FrontierPoint,
    Measured,
    Speed,
    depth_curves,
    describe_depth,
    differences,
    frontier,
    measure_speeds,
    token_flops,
)
from loopscale.evaluate.frontier import points_table
from loopscale.evaluate.tables import (
    depth_table,
    difference_table,
    frontier_table,
)
from loopscale.storage import plain, write_json
from loopscale.study.published import points_129m

PIPE_WIDTH = 120  # of tables that go to a file


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
    add_halting_arguments(parser)
    parser.add_argument("--reference", type=bool, default=False, help="add the paper's 129M exits to the frontier")
    add_model_arguments(parser)
    parser.add_argument("--json", type=str | None, help="write every figure to this file")
    parser.add_argument("--figures", type=str | None, help="draw into this folder")


def run(args: Namespace) -> int:
    """Measure every model, print the tables and write what was asked for."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    halting = halting_asked(args)
    sizes = sorted(set(args.speed_batch_sizes))
    if sizes[0] < 1 or args.repeats < 1:
        raise InputError("--speed_batch_sizes and --repeats must be at least 1.")
    check_outputs(args, "figures", "save_rules")
    subjects = [
        measured_subject(args, name, label) for name, label in zip(args.models, labels(args.models), strict=True)
    ]
    rules = {} if halting is None else {subject.label: halting.rules_for(subject) for subject in subjects}
    curves = {subject.label: _curves(args, subject) for subject in subjects}
    speeds = _speeds(subjects, curves, sizes, args.repeats)
    found: dict[str, Any] = {"environment": environment(), "corpus": args.corpus, "models": {}}
    measured: dict[str, Measured] = {}
    for subject in subjects:
        own = {size: some[subject.label] for size, some in speeds.items()}
        flops = token_flops(subject.model, subject.inputs[:1])
        description: dict[str, Any] = {"speeds": [speed.to_dict() for some in own.values() for speed in some]}
        description["depth"] = {}
        for reading, curve in curves[subject.label].items():
            label = subject.label if reading == "trained" else f"{subject.label} ({reading})"
            measured[label] = Measured(curve, flops, own[max(own)])
            description["depth"][reading] = describe_depth(measured[label])
            console.print(depth_table(f"{label}, {subject.described}", measured[label], own), "")
        found["models"][subject.label] = description
    found["frontier"] = _frontier(args, measured, console)
    if halting is not None:
        for subject in subjects:
            found["models"][subject.label]["halting"] = halting.report(subject, rules[subject.label], console)
    if args.json:
        write_json(Path(args.json), plain(found))
    if args.figures:
        _figures(Path(args.figures), found, measured, reference(args))
    return 0


def _curves(args: Namespace, subject: Subject) -> dict[str, DepthCurve]:
    windows = progress(subject.label)(subject.windows, "depth curve")
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
        for size in progress("all models")(fitting, "timing exits")
    }


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
