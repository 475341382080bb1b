"""Findings, from the committed results: `python -m benchmarks.findings` writes the page, its tables and its figure.

`python -m benchmarks.findings --keep runs/laptop laptop-cpu` first puts a study into results/, thinned: what no table
or figure needs of the training log is left out.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.findings import matrices, settings
from benchmarks.findings.study import Study
from loopscale.display import plot
from loopscale.display.figure import to_svg
from loopscale.study import Run, judged, load, write_report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
DOCS = ROOT / "docs"
PAGES = {"findings.md": "page.md.j2", "findings-tables.md": "tables.md.j2"}
FIGURE = Path("figures") / "controls.svg"
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


def pages(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands below docs/, by path, of what `asked` found: every measured number is read from results/."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = {name: environment.get_template(template).render(found) for name, template in PAGES.items()}
    return {**texts, str(FIGURE): to_svg(plot(settings.chart(found["settings"])))}


def write() -> None:
    """Write docs/ anew."""
    for name, text in pages(asked()).items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")


def asked() -> dict[str, Any]:
    """Return what the pages ask: the studies, all and by kind, and what sets them side by side."""
    studies = {path.parent.name: Study(path.parent, judged(load(path))) for path in _documents()}
    ways = [study for study in studies.values() if study.is_of_ways]
    most = {}  # of studies that differ in nothing else, the one with the most seeds
    for study in sorted(studies.values(), key=lambda study: len(study.results.seeds)):
        most[study.recipe, study.results.corpus["sha256"]] = study
    decisive = [study for study in studies.values() if study in most.values()]
    return {
        "studies": studies,
        "ways": ways,
        "decisive": decisive,
        "paper": [study for study in decisive if not study.is_of_ways],
        "main": max(ways, key=lambda study: len(study.results.all_runs)),
        "settings": settings.settings(studies.values()),
        "matrices": matrices,
        "of_settings": settings,
    }


def _documents() -> list[Path]:
    return sorted(RESULTS.glob("*/results.json"))
