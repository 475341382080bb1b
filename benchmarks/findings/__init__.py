"""Page of findings, from the committed results: `python -m benchmarks.findings` writes docs/findings.md anew.

`python -m benchmarks.findings --keep runs/laptop laptop-cpu` first puts a study into results/, thinned: what no table
or figure needs of the training log is left out.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.findings import matrices
from benchmarks.findings.study import Study
from loopscale.study import Run, judged, load, write_report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "findings.md"
LOGGED = ("step", "loss")  # of a log line, and the norm after the last loop


def keep(source: Path, name: str) -> None:
    """Write a study's results, tables and figures below results/, without the page."""
    results = load(source / "results.json")
    conditions = {
        condition: replace(found, runs=tuple(map(_thinned, found.runs)))
        for condition, found in results.conditions.items()
    }
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    write_report(replace(results, conditions=conditions), RESULTS / name)
    for path in ((RESULTS / name) / "report.html", *(RESULTS / name / "figures").glob("*.png")):
        path.unlink()


def _thinned(run: Run) -> Run:
    wanted = (*LOGGED, f"loop_norms/{len(run.norm)}")
    lines = [{key: line[key] for key in wanted if key in line} for line in run.measured.get("history") or ()]
    return replace(run, measured={**run.measured, "history": lines})


def page() -> str:
    """Return docs/findings.md: every number read from results/, with a link to the table that holds it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    studies = {path.parent.name: Study(path.parent, judged(load(path))) for path in _documents()}
    ways = [study for study in studies.values() if study.is_of_ways]
    most = {}  # of studies that differ in nothing else, the one with the most seeds
    for study in sorted(studies.values(), key=lambda study: len(study.results.seeds)):
        most[study.setting, study.results.corpus["sha256"]] = study
    decisive = [study for study in studies.values() if study in most.values()]
    paper = [study for study in decisive if not study.is_of_ways]
    main = max(ways, key=lambda study: len(study.results.all_runs))
    return environment.get_template("page.md.j2").render(
        studies=studies, ways=ways, paper=paper, decisive=decisive, main=main, matrices=matrices
    )


def _documents() -> list[Path]:
    return sorted(RESULTS.glob("*/results.json"))
