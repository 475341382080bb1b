"""Writing of a report: results, tables, figures and the page, all worked out from the same document."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loopscale.display import console, inert, to_markdown, write_chart

from ..document import load, save
from ..results import RESULTS_FILE, Results
from ..topics import TOPICS, ranking
from .advising import advice
from .claims import answer, claims_table
from .page_content import ON_PAGE, page, page_sections, sentences, tables_of

PAGE = "report.html"


def judged(results: Results) -> Results:
    """Return `results` with every claim judged by its runs."""
    return replace(results, claims=tuple(claim.judge(results) for topic in TOPICS for claim in topic.claims))


def write_report(results: Results, out: Path) -> Results:
    """Judge the claims and write everything below `out`; return the judged results.

    Files: `results.json`, `tables/*.md`, `figures/*.png` and `*.svg`, `report.html`.
    """
    results = judged(results)
    save(results, out / RESULTS_FILE)
    sections, claims = page_sections(results), claims_table(results)
    for figure in (figure for section in sections for figure in section.figures):
        write_chart(figure.chart, out / "figures" / figure.name)
    (out / "tables").mkdir(exist_ok=True)
    for table in [*(table for section in sections for table in section.tables), *([claims] if claims else [])]:
        (out / "tables" / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
    (out / PAGE).write_text(page(results, sections), encoding="utf-8")
    return results


def render(console: Console, results: Results, page: Path | None = None) -> None:
    """Print Table 1, the ways to control the scale and the claims, where the page is, and last the results in words.

    Where a study tests no claim at all, as one of another grid, their table is left out.
    """
    results = judged(results)
    tested = any(claim.verdict != "not tested here" for claim in results.claims)
    first = next(iter(tables_of(ON_PAGE[:1], results)), None)
    for table in (first, ranking.control(results), claims_table(results) if tested else None):
        if table is not None:
            console.print(table)
    if page is not None:
        console.print(Text(f"report: {page}"), soft_wrap=True)
    advised = advice(results)
    for sentence in (*sentences(results), answer(results), advised and advised.headline):
        if sentence:
            console.print(Text(inert(sentence)))


def report_command(out: Path) -> None:
    """Write the report of a study, finished or not, anew from the `results.json` in `out`, and print it."""
    screen = console()
    results = load(out / RESULTS_FILE)
    with screen.status("drawing the report"):
        results = write_report(results, out)
    render(screen, results, out / PAGE)
