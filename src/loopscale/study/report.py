"""Report: results, tables, figures and one self-contained page, all worked out from the same document."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.text import Text

from loopscale.display import (
    Column,
    Table,
    console,
    duration,
    inert,
    mean_and_spread,
    number,
    spelled,
    to_html,
    to_markdown,
    write_figure,
)
from loopscale.display.figure import INK
from loopscale.storage import to_json

from .document import load, save
from .results import RESULTS_FILE, Judgement, Outcome, Results
from .topic import SEED_NOISE, Drawing, Topic
from .topics import TOPICS, ranking

PAGE = "report.html"
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
COLOURS = {"holds": "green", "does not hold": "red", "undecided": "yellow", "not tested here": "dim"}
ON_PAGE: tuple[Topic, ...] = tuple(sorted(TOPICS, key=lambda topic: topic.place))


@dataclass(frozen=True)
class InlineFigure:
    """A figure as the page shows it."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class PageSection:
    """A part of the page under one heading."""

    name: str
    heading: str
    figures: list[InlineFigure]
    tables: list[Table]


def judged(results: Results) -> Results:
    """Return `results` with every claim judged by its runs."""
    return replace(results, claims=tuple(claim.judge(results) for topic in TOPICS for claim in topic.claims))


def write_report(results: Results, out: Path) -> Results:
    """Judge the claims and write everything below `out`; return the judged results.

    Files: `results.json`, `tables/*.md`, `figures/*.png` and `*.svg`, `report.html`.
    """
    results = judged(results)
    save(results, out / RESULTS_FILE)
    sections = _sections(results, out / "figures")
    (out / "tables").mkdir(exist_ok=True)
    for table in (table for section in sections for table in section.tables):
        (out / "tables" / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
    (out / PAGE).write_text(_page(results, sections), encoding="utf-8")
    return results


def render(console: Console, results: Results, page: Path | None = None) -> None:
    """Print Table 1, the ways to control the scale and the claims, where the page is, and last the results in words.

    Where a study tests no claim at all, as one of another grid, their table is left out.
    """
    results = judged(results)
    tested = any(claim.verdict != "not tested here" for claim in results.claims)
    first = next(iter(_tables(ON_PAGE[:1], results)), None)
    for table in (first, ranking.control(results), claims_table(results) if tested else None):
        if table is not None:
            console.print(table)
    if page is not None:
        console.print(Text(f"report: {page}"), soft_wrap=True)
    for sentence in (*sentences(results), answer(results)):
        if sentence:
            console.print(Text(inert(sentence)))


def answer(results: Results) -> str | None:
    """Say which claims hold, which do not, and what was not decided; None without claims."""
    by_verdict = {verdict: [c.id for c in results.claims if c.verdict == verdict] for verdict in OUTCOMES}
    words: dict[Outcome, str] = {"holds": "hold", "does not hold": "do not hold", "undecided": "are not decided"}
    said = [f"{len(by_verdict[v])} {word} ({', '.join(by_verdict[v])})" for v, word in words.items() if by_verdict[v]]
    untested = len(by_verdict["not tested here"])
    said += [f"{untested} not tested here"] if untested and said else []
    return f"The claims: {'; '.join(said)}." if said else None


def report_command(out: Path) -> None:
    """Write the report of a study, finished or not, anew from the `results.json` in `out`, and print it."""
    screen = console()
    results = load(out / RESULTS_FILE)
    with screen.status("drawing the report"):
        results = write_report(results, out)
    render(screen, results, out / PAGE)


def sentences(results: Results) -> list[str]:
    """Return what the results say, a sentence per topic that has the runs for it."""
    said = (topic.sentence(results) for topic in ON_PAGE if topic.sentence)
    return [sentence for sentence in said if sentence]


def claims_table(results: Results) -> Table | None:
    """Every claim with its figure, threshold and verdict."""
    if not results.claims:
        return None
    return Table(
        name="claims",
        title="Claims",
        caption="Ours: mean ± standard deviation over seeds, the noise of one run. Interval: 95%, of the mean, by "
        "Student's t over seeds, of ratios in logarithms. Seeds: those that meet the threshold alone. Undecided: the "
        f"interval holds the threshold, or one seed lies within a factor {SEED_NOISE:g} of it where the losses of "
        "models trained apart are compared.",
        columns=(
            Column("claim"),
            Column("statement", aside=True),
            Column("ours", numeric=True),
            Column("interval", numeric=True, aside=True),
            Column("seeds", numeric=True),
            Column("threshold"),
            Column("published", aside=True),
            Column("verdict", colours=COLOURS),
        ),
        rows=tuple(
            (
                claim.id,
                " ".join(filter(None, (claim.statement, claim.note))),
                claim_value(claim),
                claim_interval(claim),
                f"{claim.agree} of {claim.n}" if claim.n else "–",
                claim.threshold + claim.unit,
                claim.published or "–",
                claim.verdict,
            )
            for claim in results.claims
        ),
    )


def claim_value(claim: Judgement) -> str:
    """Return what was measured, over the seeds."""
    return f"{mean_and_spread(claim.values)}{claim.unit}" if claim.n else "–"


def claim_interval(claim: Judgement) -> str:
    """Return the interval of the mean over seeds."""
    return f"[{number(claim.low)}, {number(claim.high)}]" if claim.low is not None else "–"


def _sections(results: Results, folder: Path) -> list[PageSection]:
    """Draw every figure into `folder`, and return the parts of the page in their order, the claims second."""
    claims = claims_table(results)
    sections = []
    for heading in dict.fromkeys(topic.heading for topic in ON_PAGE):
        topics = [topic for topic in ON_PAGE if topic.heading == heading]
        figures = [_figure(drawing, results, folder) for topic in topics for drawing in topic.figures]
        drawn = [figure for figure in figures if figure is not None]
        sections.append(PageSection(topics[0].name, heading, drawn, _tables(topics, results)))
    sections.insert(1, PageSection("claims", "Claims", [], [claims] if claims else []))
    return [section for section in sections if section.tables or section.figures]


def _tables(topics: Sequence[Topic], results: Results) -> list[Table]:
    return [table for topic in topics for build in topic.tables if (table := build(results))]


def _figure(drawing: Drawing, results: Results, folder: Path) -> InlineFigure | None:
    figure = drawing.draw(results)
    if figure is None:
        return None
    return InlineFigure(drawing.title, drawing.caption, _inline(write_figure(figure, folder / drawing.name)))


def _inline(svg: str) -> str:
    """Return the svg element alone, its ink in the colour of the page's text, so that it is readable in the dark."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _page(results: Results, sections: list[PageSection]) -> str:
    templates = Environment(
        loader=PackageLoader("loopscale.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=spelled,
    )
    templates.filters.update(number=number, claim_value=claim_value, claim_interval=claim_interval)
    templates.filters.update(inert=inert, html=to_html, duration=duration)
    return templates.get_template("report.html.j2").render(
        results=results,
        sentences=sentences(results),
        sections=sections,
        counts=_counts(results.claims),
        config=to_json(results.config, indent=2),
    )


def _counts(claims: tuple[Judgement, ...]) -> dict[Outcome, int]:
    verdicts = [claim.verdict for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in OUTCOMES}
