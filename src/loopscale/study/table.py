"""What a table is: rows of text worked out once, rendered as Markdown for files and with rich for the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import JustifyMethod
from rich.table import Table as RichTable

from .results import Results, Run

Section = Literal["exits", "claims", "norms", "audit", "depth"]

WIDE = 140  # columns of a terminal that holds sentences beside figures
VERDICT_STYLES = {"holds": "green", "does not hold": "red", "not tested here": "dim"}


@dataclass(frozen=True)
class Column:
    """A heading; `numeric` columns are aligned right, `aside` ones left out of a narrow terminal."""

    heading: str
    numeric: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns.

    `name` is the file's, `caption` says what a cell is, `section` where the page shows it.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    section: Section = "exits"


def to_markdown(table: Table) -> str:
    """Return the table as a Markdown document: title, caption, rows."""
    headings = [column.heading for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [_line(headings), _line(rules), *map(_line, table.rows)]
    return "\n".join([f"# {table.title}", "", table.caption, "", *lines, ""])


def to_rich(table: Table, width: int) -> RichTable:
    """Return the table for a rich console of that width; verdicts carry their colour.

    The first and last column are never broken: the name of a row and its verdict.
    """
    shown = [i for i, column in enumerate(table.columns) if width >= WIDE or not column.aside]
    rendered = RichTable(
        title=table.title, caption=table.caption, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    rendered.title_justify = rendered.caption_justify = "left"
    for i in shown:
        heading, whole = table.columns[i].heading, i in (0, len(table.columns) - 1)
        justify: JustifyMethod = "right" if table.columns[i].numeric else "left"
        narrowest = max(map(len, [heading, *(row[i] for row in table.rows)])) if whole else len(heading.split()[0])
        rendered.add_column(heading, justify=justify, no_wrap=whole, min_width=narrowest)
    for row in table.rows:
        rendered.add_row(*(row[i] for i in shown), style=VERDICT_STYLES.get(row[-1]))
    return rendered


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def by_condition(results: Results, cells: Callable[[tuple[Run, ...]], list[str]]) -> tuple[tuple[str, ...], ...]:
    """Return a row per condition that has runs: its name, then its cells."""
    return tuple((name, *cells(condition.runs)) for name, condition in results.conditions.items() if condition.runs)


def count(runs: tuple[Run, ...]) -> str:
    """Return how many runs there are, and how many of them diverged."""
    diverged = sum(run.diverged for run in runs)
    return f"{len(runs)} ({diverged} diverged)" if diverged else str(len(runs))


def over(results: Results) -> str:
    """Say what a cell is over the seeds."""
    return "Mean ± standard deviation over seeds." if len(results.seeds) > 1 else "One seed."
