"""Writing of a report: results, tables, figures and the page, all worked out from the same document."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loopscale.display import console, inert, to_latex, to_markdown, write_chart
from loopscale.errors import InputError
from loopscale.storage import check_writable, resolved

from ..best_rates import by_name
from ..document import load, save
from ..results import RESULTS_FILE, Results
from ..topics import TOPICS
from ..topics.ways import ranking
from .advising import advice
from .claims import answer, claims_table
from .merging import left_out, merged, parts_of
from .page_content import ON_PAGE, page, page_sections, sentences, tables_of

PAGE = "report.html"
LATEX = "latex"  # folder
MERGED = Path("runs") / "merged"


def judged(results: Results) -> Results:
    """Return `results` with every claim judged by its runs (of several learning rates: `by_name`)."""
    seen = by_name(results)
    return replace(results, claims=tuple(claim.judge(seen) for topic in TOPICS for claim in topic.claims))


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
    first = next(iter(tables_of(ON_PAGE[:1], results)), None)
    for table in (first, ranking.control(results), claims_table(results)):
        if table is not None:
            console.print(table)
    if page is not None:
        console.print(Text(f"report: {page}"), soft_wrap=True)
    advised = advice(results)
    for sentence in (*sentences(results), answer(results), advised and advised.headline):
        if sentence:
            console.print(Text(inert(sentence)))


def report_command(folder: Path, *others: Path, out: Path | None = None, latex: bool = False) -> None:
    """Write the report of a study, finished or not, anew from its `results.json`, and print it; of several, merged.

    It goes into `out`: by default a study's own folder, `runs/merged` for several. `latex` adds Table 1 and the claims
    for a paper. Raises `InputError` for studies that are no one study, and where `out` holds another.
    """
    screen = console()
    folders = [folder, *others]
    studies = [load(one / RESULTS_FILE) for one in folders]
    target = out or (MERGED if others else folder)
    if resolved(target) != resolved(folder) or others:
        check_target(target)
    results = merged(folders, studies, target) if others else studies[0]
    with screen.status("drawing the report"):
        results = write_report(results, target)
        if latex:
            write_latex(results, target / LATEX)
    for sentence in left_out(results):
        screen.print(Text(inert(sentence)), soft_wrap=True)
    render(screen, results, target / PAGE)


def check_target(out: Path) -> None:
    """Raise `InputError` where a folder holds anything but a merged report, which a new one may replace."""
    check_writable("--out", out)
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / RESULTS_FILE).exists() or not parts_of(load(out / RESULTS_FILE)):
        raise InputError(f"{out} is not empty and holds no merged report: name another folder by --out.")


def write_latex(results: Results, folder: Path) -> None:
    """Write Table 1 and the claims as LaTeX, each claim's statement in a comment."""
    folder.mkdir(exist_ok=True)
    for table in (*tables_of(ON_PAGE[:1], results)[:1], claims_table(results)):
        if table is not None:
            kept = [i for i, column in enumerate(table.columns) if column.heading != "statement"]
            columns, rows = tuple(table.columns[i] for i in kept), [tuple(row[i] for i in kept) for row in table.rows]
            said = [f"% {claim.id}: {inert(claim.statement)}" for claim in results.claims if table.name == "claims"]
            text = to_latex(replace(table, columns=columns, rows=tuple(rows)))
            (folder / f"{table.name}.tex").write_text("\n".join([*said, text]), encoding="utf-8")
