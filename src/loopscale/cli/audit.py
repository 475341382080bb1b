"""`loopscale audit`: a model measured, or a configuration judged before it is trained."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from loopscale.audit import Thresholds, audit, intervene, loop_curves, search, static_verdict
from loopscale.audit.display import (
    curves_line,
    intervention_table,
    loop_table,
    search_table,
    static_table,
    verdict_table,
    write_figures,
)
from loopscale.batches import Batch
from loopscale.cli.options import parser_of
from loopscale.cli.parser import check_outputs, read_document
from loopscale.cli.subject import labels, loaded, measured_subject
from loopscale.cli.train import run_config
from loopscale.display import console, tracker
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig
from loopscale.processes import first_alone, is_first
from loopscale.storage import plain, write_json
from loopscale.train import RunConfig

BLIND_SPOT = 3
RUN_PARTS = {"preset", "model", "data", "train"}
GOES_WITH_A_MODEL = ("supervision", "norm_penalty_coef", "search", "full", "figures")


def run(args: Namespace) -> int:
    """Judge a configuration or measure a model."""
    if (args.model is None) == (args.config is None):
        raise InputError("give either a MODEL to measure or --config FILE to judge before training.")
    first_alone(lambda: check_outputs(args, "figures"))
    return _judge(args) if args.model is None else _measure(args)


def _judge(args: Namespace) -> int:
    for option in GOES_WITH_A_MODEL:
        if args[option]:
            raise InputError(
                f"--{option} goes with a MODEL to measure: a configuration is judged by what it says itself."
            )
    config, scale_target = read_config(Path(args.config))
    verdicts = static_verdict(config, penalty=scale_target is not None)
    console(quiet=not is_first()).print(static_table(verdicts))
    _write(args.json, {"coordinates": plain(verdicts)})
    return BLIND_SPOT if any(v.verdict == "blind_spot" for v in verdicts.values()) else 0


def _measure(args: Namespace) -> int:
    wanted = None if args.windows == "all" else int(args.windows)
    label = labels([args.model])[0]
    (subject,) = loaded(lambda: [measured_subject(args, args.model, label, wanted, halves=True)])
    model, out = subject.model, console(quiet=not is_first())
    told = {"supervision": args.supervision, "norm_penalty_coef": args.norm_penalty_coef}
    thresholds = Thresholds(**{name: value for name, value in args.thresholds.as_dict().items() if value is not None})

    def windows(what: str) -> Iterable[Batch]:
        return tracker(quiet=not is_first())(subject.windows, what)

    report = audit(model, windows("auditing"), thresholds=thresholds, **told)
    out.print(f"{subject.label}, {subject.described}", soft_wrap=True, highlight=False)
    out.print("", loop_table(report), "", verdict_table(report), *report.notes, sep="\n")
    found: dict[str, Any] = {**report.to_dict(), "measured_on": plain(subject.facts)}
    blind = bool(report.blind_spots)
    if args.search:
        hidden = search(model, windows("searching"), thresholds=thresholds, **told)
        out.print("", search_table(hidden), *hidden.notes, sep="\n")
        found["search"] = plain(hidden)
        blind |= bool(hidden.blind)
    if args.full or args.figures:
        curves, changed = loop_curves(model, windows("30 loops")), intervene(model, windows("intervening"))
        out.print("", curves_line(curves), "", intervention_table(changed), sep="\n")
        found |= {"curves": plain(curves), "interventions": plain(changed)}
        if args.figures:
            first_alone(lambda: write_figures(Path(args.figures), report, curves, changed))
            out.print(f"figures are in {args.figures}", soft_wrap=True)
    _write(args.json, found)
    return BLIND_SPOT if blind else 0


def _write(path: str | None, found: dict[str, Any]) -> None:
    if path is not None:
        first_alone(lambda: write_json(Path(path), found))


def read_config(path: Path) -> tuple[LoopedConfig, float | None]:
    """Return the configuration that a YAML or JSON file describes, and the scale that its training would hold, if any.

    It may be a model's `config.json` (or the folder that holds it), the `run.json` of a training run, or what
    `loopscale train --config` takes.

    Raises `InputError` where the file cannot be read or holds something else, as `train` does.
    """
    path = path / "config.json" if path.is_dir() else path
    document = read_document(path)
    if RUN_PARTS & document.keys():
        words = ["--config", str(path)]
        run = run_config(parser_of("train", words).read(words), "")
    elif isinstance(document.get("config"), dict):
        run = RunConfig.from_dict(document["config"])
    else:
        return _model_config(document, path), None
    return run.model_config(None), run.train.scale_target


def _model_config(values: Mapping[str, Any], path: Path) -> LoopedConfig:
    kind = values.get("model_type", LoopedConfig.model_type)
    if kind != LoopedConfig.model_type:
        raise InputError(f"{path} describes a {kind} model: only a loopscale configuration can be judged unmeasured.")
    known = {field.name for field in fields(LoopedConfig)} | {"model_type", "transformers_version"}
    for name in values:
        if name not in known:
            raise unknown(f"field of {path}", name, known)
    try:
        return LoopedConfig.from_dict(dict(values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
