"""Page of a study: the answer, the claims, every table and figure, and how it was measured, in one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from loopscale.display import Column, Table, duration, number
from loopscale.display.page import PageFigure, render
from loopscale.storage import to_json

from ..results import Results
from ..topic import Topic
from ..topics import TOPICS
from .advising import advice
from .claims import claim_interval, claim_value, counts, rates_said, tested
from .merging import left_out, parts_of

HERE = Path(__file__).parent
ON_PAGE: tuple[Topic, ...] = tuple(sorted(TOPICS, key=lambda topic: topic.place))
MANY = " Means over seeds; a band runs from the least to the greatest."


@final
@dataclass(frozen=True)
class PageSection:
    """A part of the page under one heading."""

    name: str
    heading: str
    figures: list[PageFigure]
    tables: list[Table]


def page_sections(results: Results) -> list[PageSection]:
    """Return what the topics show, by heading, in the order of the page."""
    sections = []
    for heading in dict.fromkeys(topic.heading for topic in ON_PAGE):
        topics = [topic for topic in ON_PAGE if topic.heading == heading]
        sections.append(PageSection(topics[0].name, heading, figures_of(topics, results), tables_of(topics, results)))
    return [section for section in sections if section.tables or section.figures]


def tables_of(topics: Sequence[Topic], results: Results) -> list[Table]:
    """Return the tables of topics that the results have the data for."""
    return [table for topic in topics for build in topic.tables if (table := build(results))]


def figures_of(topics: Sequence[Topic], results: Results) -> list[PageFigure]:
    """Return the figures of topics that the results have the data for."""
    several = len(results.seeds) > 1
    found = []
    for drawing in (drawing for topic in topics for drawing in topic.figures):
        if (chart := drawing.draw(results)) is not None:
            banded = several and any(series.reach_y for series in chart.series)
            found.append(PageFigure(drawing.name, drawing.title, drawing.caption + (MANY if banded else ""), chart))
    return found


def sentences(results: Results) -> list[str]:
    """Return what the results say, a sentence per topic that has the runs for it."""
    said = (topic.sentence(results) for topic in ON_PAGE if topic.sentence)
    return [sentence for sentence in said if sentence]


def page(results: Results, sections: Sequence[PageSection]) -> str:
    """Return the page of judged results as HTML."""
    return render(
        "report.html.j2",
        HERE,
        styles=("report.css",),
        results=results,
        advice=advice(results),
        sentences=[said.partition(": ") for said in sentences(results)],
        sections=sections,
        counts=counts(results.claims),
        tested=tested(results),
        rates_said=rates_said(results),
        claim_value=claim_value,
        claim_interval=claim_interval,
        facts=_facts(results),
        studies=parts_of(results),
        notes=_notes(results),
        runs=_runs(results),
        edits={name: to_json(condition.model) for name, condition in results.conditions.items()},
        config=to_json(results.config, indent=2),
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    runs = results.all_runs
    facts = [("preset", results.preset), ("corpus", str(results.corpus["name"])), ("loops", str(results.num_loops))]
    facts.append(("conditions", str(len(results.conditions))))
    if studies := parts_of(results):
        facts.append(("studies", ", ".join(study.name for study in studies)))
    if runs:
        facts += [
            ("seeds", ", ".join(map(str, results.seeds))),
            ("parameters", _range([run.parameters for run in runs])),
            ("steps", _range([run.steps for run in runs])),
            ("evaluated tokens", _range([run.tokens for run in runs])),
            ("training time, all runs", duration(sum(run.train_seconds for run in runs))),
        ]
    return facts


def _notes(results: Results) -> list[str]:
    """Return what is to be known of a study whose runs are of several folders or machines."""
    machines = [results.environment.get(key) for key in ("cpu", "cpu_count", "gpu")]
    several = any(isinstance(value, list) for value in machines)
    return left_out(results) + (["Runs are of several machines: compare no speeds between them."] if several else [])


def _range(values: Sequence[int]) -> str:
    return " to ".join(f"{value:,}" for value in sorted({min(values), max(values)}))


def _runs(results: Results) -> Table:
    """Every run with what was trained, how long, and where its weights are."""
    rows = tuple(
        (
            name,
            str(run.seed),
            f"{run.steps:,}",
            number(run.train_seconds),
            f"{run.parameters:,}",
            number(run.cross_entropy[-1]),
            str(run.measured.get("diverged", "diverged" if run.diverged else "finished")),
            run.checkpoint,
        )
        for name, condition in results.conditions.items()
        for run in condition.runs
    )
    figures = ("seed", "steps", "seconds", "parameters", "last loss")
    columns = Column("condition"), *(Column(name, True) for name in figures), Column("state"), Column("checkpoint")
    caption = "Loss: nats a token at the last exit, validation split. Checkpoint: relative to results.json."
    return Table("runs", "Every run", caption, columns, rows)
