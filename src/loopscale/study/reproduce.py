"""Reproduction of the paper's comparison: every condition and seed trained, measured, judged and reported.

`<out>/<condition>/seed-<n>/` holds a run and its model; results, tables, figures and page lie in `<out>`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from loopscale import display
from loopscale.errors import InputError
from loopscale.storage import read_json, write_json
from loopscale.system.environment import environment
from loopscale.train import RunConfig, check_corpus, check_folder, differences, load_run_data, started, write_config

from .document import run_from
from .executor import Executor, Job, LocalExecutor
from .grid import PAPER, edited_fields, named_conditions, stated_fields
from .live import LiveTable
from .report import PAGE, render, write_report
from .results import ConditionResult, Results
from .worker import RESULT_FILE, read_report

STUDY_FILE = "study.json"


@dataclass(frozen=True)
class StudyRun:
    """One cell of the grid: a condition, a seed, and the run they make."""

    condition: str
    config: RunConfig

    @property
    def name(self) -> str:
        """Return `condition/seed-n`, its folder's name."""
        return f"{self.condition}/seed-{self.config.train.seed}"

    @property
    def finished(self) -> bool:
        """Whether the run is trained and measured."""
        return (self.config.folder / RESULT_FILE).exists()


def plan(base: RunConfig, conditions: Sequence[str] | None, seeds: Sequence[int], out: Path) -> list[StudyRun]:
    """Return the runs of the grid, seed by seed, so that one whole comparison is done first."""
    runs = []
    for seed in dict.fromkeys(seeds):
        for name, fields in named_conditions(conditions).items():
            config = replace(base.with_model(**fields), train=replace(base.train, seed=seed))
            runs.append(StudyRun(name, replace(config, out=str(out / name / f"seed-{seed}"))))
    return runs


def reproduce(
    base: RunConfig,
    out: Path,
    conditions: Sequence[str] | None = None,
    seeds: Sequence[int] = (42,),
    processes: int | None = None,
    executor: Executor | None = None,
    console: Console | None = None,
) -> Results:
    """Train what is not trained yet, then judge and report everything in `out`.

    Raises `InputError` for bad input, before anything is written, and for a run that fails.
    """
    screen = console or display.console()
    for name in sorted(base.model.keys() & edited_fields()):
        raise InputError(f"model.{name} is what the conditions differ in: choose by --conditions, or train one model.")
    runs = plan(base, conditions, seeds, out)
    check_study(base, out)
    for run in runs:
        check_folder(run.config)
    with screen.status("reading the corpus"):
        data = load_run_data(base)
    for folder in {run.config.folder for run in (*runs, *finished_runs(base, out))}:
        check_corpus(folder, data)
    pending = [run for run in runs if not run.finished]
    jobs = [Job(run.name, run.config.folder) for run in pending]
    executor = executor or LocalExecutor.for_machine(len(jobs), processes)
    write_json(out / STUDY_FILE, identity(base))
    for run in pending:
        write_config(run.config)
    corpus = {
        "name": data.corpus.name,
        "sha256": data.corpus.sha256,
        "tokenizer": base.data.tokenizer,
        "vocab_size": data.vocab_size,
    }
    try:
        with LiveTable(screen, [(run.name, run.config.folder) for run in runs]) as live:
            executor.execute(jobs, live.tick)
    except (InputError, KeyboardInterrupt):
        if finished := finished_runs(base, out):
            write_report(collect(base, finished, corpus, out), out)
            screen.print(Text(f"report of the {len(finished)} finished runs: {out / PAGE}"), soft_wrap=True)
        screen.print("the same command goes on where it was", soft_wrap=True)
        raise
    results = write_report(collect(base, finished_runs(base, out), corpus, out), out)
    render(screen, results)
    if lost := [run.checkpoint for run in results.all_runs if run.diverged]:
        words = f"diverged: {', '.join(lost)}: try a lower train.learning_rate or train.clip"
        screen.print(Text(words), soft_wrap=True)
    screen.print(Text(f"report: {out / PAGE}"), soft_wrap=True)
    return results


def finished_runs(base: RunConfig, out: Path) -> list[StudyRun]:
    """Return every run of the study that is finished, those of earlier calls included, in the grid's order."""
    folders = [path.parent for path in out.glob(f"*/seed-*/{RESULT_FILE}")]
    seeds = sorted({int(folder.name.removeprefix("seed-")) for folder in folders})
    conditions = {folder.parent.name for folder in folders} & PAPER.keys()
    return [run for run in plan(base, sorted(conditions), seeds, out) if run.finished]


def collect(base: RunConfig, runs: Sequence[StudyRun], corpus: Mapping[str, Any], out: Path) -> Results:
    """Return the results of every finished run."""
    conditions: dict[str, ConditionResult] = {}
    for run in runs:
        document = read_report(run.config.folder / RESULT_FILE)
        assert document is not None  # the run is finished
        document["checkpoint"] = run.config.folder.relative_to(out).as_posix()
        before = conditions.get(run.condition)
        conditions[run.condition] = ConditionResult(
            model=stated_fields(run.config.model_config(None), PAPER[run.condition]),
            runs=(*(before.runs if before else ()), run_from(document, run.name)),
        )
    return Results(
        preset=base.preset or "custom",
        corpus=dict(corpus),
        environment=environment(),
        config=identity(base),
        num_loops=base.model_config(None).num_loops,
        conditions=conditions,
    )


def identity(base: RunConfig) -> dict[str, Any]:
    """Return what a study's runs have in common: the base run without its folder and seed."""
    document = base.to_dict()
    del document["out"], document["train"]["seed"]
    return document


def check_study(base: RunConfig, out: Path) -> None:
    """Check that `out` is free or belongs to this study. Raises `InputError` where it belongs to another."""
    path = out / STUDY_FILE
    if not path.exists() and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no study: choose another --out.")
    if not path.exists() or not any(started(folder) for folder in out.glob("*/seed-*")):
        return
    before = read_json(path, dict[str, Any], f"remove {out} or choose another --out")
    if differing := differences(before, identity(base)):
        raise InputError(
            f"{out} belongs to another configuration ({', '.join(differing)} differ): choose another --out."
        )
