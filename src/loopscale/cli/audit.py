"""Say which variables of a looped model's state its loss controls, and which are blind spots.

A blind spot is a variable that no supervised loss sees and that the recurrence carries on. Give a MODEL to measure its
weights on a corpus, or --config to judge a configuration before training. Exit status: 0 without blind spots, 3 with
any, 2 on bad input.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import track
from torch import Tensor

from loopscale.audit import Thresholds, audit, intervene, loop_curves, search, static_verdict
from loopscale.audit.tables import (
    curves_line,
    intervention_table,
    loop_table,
    search_table,
    static_table,
    verdict_table,
)
from loopscale.cli.config_file import read_config
from loopscale.cli.outputs import check_outputs
from loopscale.cli.parser import Parser
from loopscale.cli.subject import add_model_arguments, add_window_arguments, load_subject, load_windows
from loopscale.data import batches
from loopscale.errors import InputError
from loopscale.storage import plain, write_json

BLIND_SPOT = 3
WIDTH = 160  # of tables in a log; a terminal knows its own


def add_arguments(parser: Parser) -> None:
    """Add the model or configuration, the corpus, what to measure and where to write it."""
    parser.add_argument("model", type=str | None, nargs="?", help="folder or hub id of a looped model")
    parser.add_argument("--config", type=str | None, help="judge this config.json, run.json or run YAML unmeasured")
    add_window_arguments(parser)
    parser.add_argument("--windows", type=int, default=32, help="windows of validation text to measure on")
    parser.add_argument("--batch_size", type=int, default=4, help="windows at a time; memory grows with it")
    parser.add_argument("--supervision", type=str | None, help="what the loss saw, where the model does not say")
    parser.add_argument("--norm_penalty_coef", type=float | None, help="likewise, of the norm penalty")
    parser.add_class_arguments(Thresholds, "thresholds")
    add_model_arguments(parser)
    parser.add_argument("--full", action="store_true", help="also lemma 2 over 30 loops, and interventions")
    parser.add_argument("--search", action="store_true", help="also look for blind directions without a name")
    parser.add_argument("--json", type=str | None, help="write every figure to this file")
    parser.add_argument("--figures", type=str | None, help="draw into this folder (implies --full)")


def run(args: Namespace) -> int:
    """Judge a configuration or measure a model."""
    if (args.model is None) == (args.config is None):
        raise InputError("give either a MODEL to measure or --config FILE to judge before training.")
    if args.windows < 1 or args.batch_size < 1:
        raise InputError(f"--windows is {args.windows} and --batch_size {args.batch_size}: give at least 1 of each.")
    check_outputs(args, "figures")
    return _judge(args) if args.model is None else _measure(args)


def _judge(args: Namespace) -> int:
    for option in ("supervision", "norm_penalty_coef", "search", "full", "figures"):
        if args[option]:
            raise InputError(
                f"--{option} goes with a MODEL to measure: a configuration is judged by what it says itself."
            )
    config, scale_target = read_config(Path(args.config))
    verdicts = static_verdict(config, penalty=scale_target is not None)
    _console().print(static_table(verdicts))
    _write(args.json, {"coordinates": plain(verdicts)})
    return BLIND_SPOT if any(v.verdict == "blind_spot" for v in verdicts.values()) else 0


def _measure(args: Namespace) -> int:
    model = load_subject(args, args.model)
    data, _ = load_windows(args, args.model, model)
    console = _console()
    told = {"supervision": args.supervision, "norm_penalty_coef": args.norm_penalty_coef}
    thresholds = Thresholds(**args.thresholds.as_dict())

    def windows(what: str) -> Iterable[Tensor]:
        wanted = min(args.windows, len(data.valid))
        rows = min(args.batch_size, max(wanted // 2, 1))  # a search holds every second batch out
        count = math.ceil(wanted / rows)
        on_stderr = Console(stderr=True)
        found = batches(data.valid, rows, limit=count)
        return track(found, what, total=count, console=on_stderr, transient=True, disable=not sys.stderr.isatty())

    report = audit(model, windows("auditing"), thresholds=thresholds, **told)
    console.print(loop_table(report), "", verdict_table(report), *report.notes, sep="\n")
    found: dict[str, Any] = report.to_dict()
    blind = bool(report.blind_spots)
    if args.search:
        hidden = search(model, windows("searching"), thresholds=thresholds, **told)
        console.print("", search_table(hidden), *hidden.notes, sep="\n")
        found["search"] = plain(hidden)
        blind |= bool(hidden.blind)
    if args.full or args.figures:
        curves, changed = loop_curves(model, windows("30 loops")), intervene(model, windows("intervening"))
        console.print("", curves_line(curves), "", intervention_table(changed), sep="\n")
        found |= {"curves": plain(curves), "interventions": plain(changed)}
        if args.figures:
            from loopscale.audit.display import write_figures  # matplotlib takes a second

            write_figures(Path(args.figures), report, curves, changed)
            console.print(f"figures are in {args.figures}", soft_wrap=True)
    _write(args.json, found)
    return BLIND_SPOT if blind else 0


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _write(path: str | None, found: dict[str, Any]) -> None:
    if path is not None:
        write_json(Path(path), found)
