"""The report: results, tables, figures and one self-contained page, all worked out from the same document."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from .audit_tables import verdict_line
from .claims import judged
from .drawing import INK, write
from .figures import FIGURES
from .results import RESULTS_FILE, Judgement, Results, load, save
from .sentences import three_sentences
from .summary import number
from .table import Section, Table, to_markdown, to_rich
from .tables import TABLES, claims, exits, ours

PAGE = "report.html"
HEADINGS: Mapping[Section, str] = {
    "exits": "Table 1",
    "claims": "Claims",
    "norms": "Norms",
    "audit": "Audit",
    "depth": "Depth and halting",
}


@dataclass(frozen=True)
class InlineFigure:
    """A figure as the page shows it."""

    title: str
    caption: str
    svg: str
    section: Section


@dataclass(frozen=True)
class PageSection:
    """A part of the page under one heading."""

    name: Section
    heading: str
    figures: list[InlineFigure]
    tables: list[Table]


def write_report(results: Results, out: Path) -> Results:
    """Judge the claims and write everything below `out`; return the judged results.

    Files: `results.json`, `tables/*.md`, `figures/*.png` and `*.svg`, `report.html`.
    """
    results = judged(results)
    save(results, out / RESULTS_FILE)
    tables = [table for build in TABLES if (table := build(results))]
    (out / "tables").mkdir(exist_ok=True)
    for table in tables:
        (out / "tables" / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
    (out / PAGE).write_text(_page(results, tables, _figures(results, out / "figures")), encoding="utf-8")
    return results


def render(console: Console, results: Results) -> None:
    """Print Table 1, the claims, and the audit's verdicts in a line."""
    results = judged(results)
    for build in (exits, claims):
        if table := build(results):
            console.print(to_rich(table, console.width))
    if line := verdict_line(results):
        console.print(f"Audit. {line}", highlight=False)


def report_command(out: Path) -> None:
    """Write the report of a finished or unfinished study anew, from the `results.json` in `out`, and print
    it.
    """
    console = Console()
    results = load(out / RESULTS_FILE)
    with console.status("drawing the report"):
        results = write_report(results, out)
    render(console, results)
    console.print(f"report: {out / PAGE}", soft_wrap=True)


def _figures(results: Results, folder: Path) -> list[InlineFigure]:
    folder.mkdir(exist_ok=True)
    shown = []
    for figure in FIGURES:
        if canvas := figure.draw(results):
            svg = write(canvas, folder / figure.name)
            shown.append(InlineFigure(figure.title, figure.caption, _inline(svg), figure.section))
    return shown


def _inline(svg: str) -> str:
    """Return the svg element alone, its ink in the colour of the page's text, so that it is readable in the
    dark.
    """
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _page(results: Results, tables: list[Table], figures: list[InlineFigure]) -> str:
    templates = Environment(
        loader=PackageLoader("loopscale.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=number, ours=ours)
    runs = [run for condition in results.conditions.values() for run in condition.runs]
    return templates.get_template("report.html.j2").render(
        results=results,
        sentences=three_sentences(results),
        verdicts=verdict_line(results),
        sections=_sections(tables, figures),
        counts=_counts(results.claims),
        runs=runs,
        config=json.dumps(results.to_dict()["config"], indent=2, ensure_ascii=False),
    )


def _sections(tables: list[Table], figures: list[InlineFigure]) -> list[PageSection]:
    sections = [
        PageSection(
            name,
            heading,
            [figure for figure in figures if figure.section == name],
            [table for table in tables if table.section == name],
        )
        for name, heading in HEADINGS.items()
    ]
    return [section for section in sections if section.tables or section.figures]


def _counts(claims: tuple[Judgement, ...]) -> dict[str, int]:
    verdicts = [claim.verdict for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in ("holds", "does not hold", "not tested here")}
