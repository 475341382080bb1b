"""Reproduction of the paper's comparison: every condition and seed trained, measured, judged and reported.

`<out>/<condition>/seed-<n>/` holds a run and its model; results, tables, figures and page lie in `<out>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from loopscale import display
from loopscale.data import Data
from loopscale.errors import InputError
from loopscale.storage import check_writable, is_staging, read_json, sweep, write_json
from loopscale.system.environment import as_one, environment
from loopscale.system.lock import only_one
from loopscale.train import (
    RunConfig,
    check_corpus,
    check_folder,
    complete,
    differences,
    load_run_data,
    started,
    write_config,
)
from loopscale.train.run_folder import only_one as only_one_trains
from loopscale.train.run_folder import read_record_of_run

from .document import run_from
from .executors import Executor, Job, LocalExecutor
from .grid import (
    PAPER,
    Edit,
    Grid,
    at_rate,
    edit_of,
    edited,
    edited_fields,
    named_conditions,
    place_of,
    stated_fields,
)
from .report import PAGE, render, write_report
from .results import ConditionResult, Results
from .running_table import LiveTable
from .worker import RESULT_FILE, read_report

STUDY_FILE = "study.json"
LOCK = ".lock"


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


def plan(base: RunConfig, conditions: Mapping[str, Edit], seeds: Sequence[int], out: Path) -> list[StudyRun]:
    """Return the runs of the conditions, seed by seed, so that one whole comparison is done first."""
    runs = []
    for seed in dict.fromkeys(seeds):
        for name, edit in conditions.items():
            config = edited(base, edit)
            config = replace(config, train=replace(config.train, seed=seed), out=str(out / name / f"seed-{seed}"))
            runs.append(StudyRun(name, config))
    return runs


def at_rates(conditions: Mapping[str, Edit], rates: Sequence[float], grid: Grid) -> dict[str, Edit]:
    """Return every condition at every learning rate, or as it is where none is given."""
    names = [at_rate(name, rate) for name in conditions for rate in rates] or list(conditions)
    return {name: edit for name in names if (edit := edit_of(name, grid)) is not None}


def at_best_rates(conditions: Iterable[str], rates: Sequence[float], grid: Grid, results: Results) -> dict[str, Edit]:
    """Return every condition at the rate with which its last exit is best so far (see `Results.best_of`)."""
    best = [results.best_of(at_rate(name, rate) for rate in rates) for name in conditions]
    return {name: edit for name in best if (edit := edit_of(name, grid)) is not None}


def reproduce(
    base: RunConfig,
    out: Path,
    conditions: Sequence[str] | None = None,
    seeds: Sequence[int] = (42,),
    executor: Executor | None = None,
    console: Console | None = None,
    grid: Grid = PAPER,
    rates: Sequence[float] = (),
) -> Results:
    """Train what is not trained yet, then judge and report everything in `out`.

    Runs that are not finished go to `executor`, that of this machine by default. With `rates` every condition is
    trained at each of these learning rates with the first seed, and at the best of them with the others.

    Raises `InputError` for bad input, before anything is written, for a run that fails, and while another process
    does so there.
    """
    check_writable("--out", out)
    with only_one(out / LOCK, f"reproducing in {out}", "wait for it or stop it, or choose another --out"):
        return _reproduced(base, out, conditions, seeds, executor or LocalExecutor(), console, grid, rates)


def _reproduced(
    base: RunConfig,
    out: Path,
    conditions: Sequence[str] | None,
    seeds: Sequence[int],
    executor: Executor,
    console: Console | None,
    grid: Grid,
    rates: Sequence[float],
) -> Results:
    screen = console or display.console()
    for name in sorted(base.model.keys() & edited_fields(grid)):
        raise InputError(f"model.{name} is what the conditions differ in: choose by --conditions, or train one model.")
    wanted, seeds = named_conditions(conditions, grid), tuple(dict.fromkeys(seeds))
    if rates and (own := [name for name in wanted if name not in grid]):
        raise InputError(f"{own[0]} has a learning rate of its own: name it without one, or leave out --rates.")
    runs = plan(base, at_rates(wanted, rates, grid), seeds[:1] if rates else seeds, out)
    check_study(base, out)
    for run in runs:
        check_folder(run.config)
    sweep(out)
    with screen.status("reading the corpus"):
        data = load_run_data(base)
    for folder in {run.config.folder for run in (*runs, *finished_runs(base, out, grid))}:
        check_corpus(folder, data)
    if others := sorted(name for name in _conditions_in(out) if edit_of(name, grid) is None):
        screen.print(Text(f"not of this grid, left out: {', '.join(others)}"), soft_wrap=True)
    write_json(out / STUDY_FILE, identity(base))
    corpus = {
        "name": data.corpus.name,
        "sha256": data.corpus.sha256,
        "tokenizer": base.data.tokenizer,
        "vocab_size": data.vocab_size,
    }

    def collected() -> Results:
        return collect(base, finished_runs(base, out, grid), corpus, out, grid)

    try:
        _execute(runs, executor, data, screen)
        if rates and seeds[1:]:
            best = at_best_rates(wanted, rates, grid, collected())
            _execute(plan(base, best, seeds[1:], out), executor, data, screen)
    except (InputError, KeyboardInterrupt):
        if finished := (results := collected()).all_runs:
            write_report(results, out)
            screen.print(Text(f"report of the {len(finished)} finished runs: {out / PAGE}"), soft_wrap=True)
        screen.print("the same command goes on where it was", soft_wrap=True)
        raise
    results = write_report(collected(), out)
    if lost := [run.checkpoint for run in results.all_runs if run.diverged]:
        words = f"diverged: {', '.join(lost)}: try a lower train.learning_rate or train.clip"
        screen.print(Text(words), soft_wrap=True)
    render(screen, results, out / PAGE)
    return results


def _execute(runs: Sequence[StudyRun], executor: Executor, data: Data, screen: Console) -> None:
    """Run what is not finished; raise `InputError` where a machine trained on another text under the same name."""
    for run in runs:
        check_folder(run.config)
    pending = [run for run in runs if not run.finished]
    for run in pending:
        with only_one_trains(run.config.folder):
            write_config(run.config)
    jobs = [Job(run.name, run.config.folder) for run in pending]
    with LiveTable(screen, [(run.name, run.config.folder) for run in runs]) as live:
        executor.execute(jobs, live.tick)
    for run in pending:
        check_corpus(run.config.folder, data)


def finished_runs(base: RunConfig, out: Path, grid: Grid = PAPER) -> list[StudyRun]:
    """Return every run of the study that is finished, those of earlier calls included, in the grid's order."""
    seeds = sorted({int(path.parent.name.removeprefix("seed-")) for path in out.glob(f"*/seed-*/{RESULT_FILE}")})
    places = {name: place for place, name in enumerate(grid)}
    known = {name: edit for name in _conditions_in(out) if (edit := edit_of(name, grid)) is not None}
    names = sorted(known, key=lambda name: place_of(name, places))
    return [run for run in plan(base, {name: known[name] for name in names}, seeds, out) if run.finished]


def _conditions_in(out: Path) -> set[str]:
    return {path.parent.parent.name for path in out.glob(f"*/seed-*/{RESULT_FILE}")}


def collect(
    base: RunConfig, runs: Sequence[StudyRun], corpus: Mapping[str, Any], out: Path, grid: Grid = PAPER
) -> Results:
    """Return the results of every finished run."""
    conditions: dict[str, ConditionResult] = {}
    for run in runs:
        document = read_report(run.config.folder / RESULT_FILE)
        assert document is not None  # the run is finished
        document["checkpoint"] = run.config.folder.relative_to(out).as_posix()
        before = conditions.get(run.condition)
        conditions[run.condition] = ConditionResult(
            model=stated_fields(run.config.model_config(None), edit_of(run.condition, grid) or {}),
            runs=(*(before.runs if before else ()), run_from(document, run.name)),
        )
    return Results(
        preset=base.preset or "custom",
        corpus=dict(corpus),
        environment=as_one(_environments(runs)) or environment(),
        config=identity(base),
        num_loops=base.model_config(None).num_loops,
        conditions=conditions,
    )


def _environments(runs: Iterable[StudyRun]) -> list[Mapping[str, Any]]:
    """Return where each run began, by its own record: a study may be continued, or spread, over many machines."""
    found = []
    for run in runs:
        with suppress(InputError):  # a run whose result alone is left still counts
            found.append(read_record_of_run(run.config.folder).environment)
    return [one for one in found if one]


def identity(base: RunConfig) -> dict[str, Any]:
    """Return what a study's runs have in common: the base run without its folder and seed."""
    document = base.to_dict()
    del document["out"], document["train"]["seed"]
    return document


def check_study(base: RunConfig, out: Path) -> None:
    """Check that `out` is free or belongs to this study. Raises `InputError` where it belongs to another."""
    path = out / STUDY_FILE
    if not path.exists() and out.is_dir() and any(p.name != LOCK and not is_staging(p) for p in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no study: choose another --out.")
    if not path.exists() or not any(started(folder) for folder in out.glob("*/seed-*")):
        return
    before = read_json(path, dict[str, Any], f"remove {out} or choose another --out")
    if differing := differences(complete(before), complete(identity(base))):
        raise InputError(
            f"{out} belongs to another configuration ({', '.join(differing)} differ): choose another --out."
        )
