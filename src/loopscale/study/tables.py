"""Tables: rows of text worked out once, rendered as Markdown for files and with rich for the terminal.

A further table is one more function in `TABLES` that returns a `Table`, or None where the results lack its
data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import JustifyMethod
from rich.table import Table as RichTable

from . import published
from .results import Judgement, Results, Run
from .summary import mean_and_spread

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
    """Rows of cells under columns; `name` is the file's, `caption` says what a cell is."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def exits(results: Results) -> Table:
    """Table 1: perplexity at every exit and the final norm, one row per condition."""
    names = [f"exit {k}" for k in range(1, results.num_loops + 1)]

    def cells(runs: tuple[Run, ...]) -> list[str]:
        perplexities = [mean_and_spread([run.perplexity[k] for run in runs]) for k in range(results.num_loops)]
        return [*perplexities, mean_and_spread([run.norm[-1] for run in runs]), _count(runs)]

    return Table(
        name="table-1",
        title="Table 1: perplexity at every exit, and the final norm",
        caption=f"Validation split; norm: mean ‖H_{results.num_loops}‖ of its tokens. {_over(results)}",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in (*names, "final norm", "seeds")),
        ),
        rows=_by_condition(results, cells),
    )


def norms(results: Results) -> Table:
    """The norm of the state at every loop, one row per condition."""

    def cells(runs: tuple[Run, ...]) -> list[str]:
        return [
            *(mean_and_spread([run.norm[k] for run in runs]) for k in range(results.num_loops)),
            _count(runs),
        ]

    loops = [f"loop {k}" for k in range(1, results.num_loops + 1)]
    return Table(
        name="norms",
        title="Norm of the state at every loop",
        caption=f"Mean ‖H_k‖ over the tokens of the validation split. {_over(results)}",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in (*loops, "seeds")),
        ),
        rows=_by_condition(results, cells),
    )


def claims(results: Results) -> Table | None:
    """Every claim with its figure, threshold and verdict."""
    if not results.claims:
        return None
    return Table(
        name="claims",
        title="Claims",
        caption="Ours: mean over seeds; seeds: those that meet the threshold alone. No significance claimed.",
        columns=(
            Column("claim"),
            Column("statement", aside=True),
            Column("ours", numeric=True),
            Column("seeds", numeric=True),
            Column("threshold"),
            Column("published", aside=True),
            Column("verdict"),
        ),
        rows=tuple(
            (
                claim.id,
                " ".join(filter(None, (claim.statement, claim.note))),
                ours(claim),
                f"{claim.agree} of {claim.n}" if claim.n else "–",
                claim.threshold + claim.unit,
                claim.published or "–",
                claim.verdict,
            )
            for claim in results.claims
        ),
    )


def beside_the_paper(results: Results) -> Table | None:
    """Final perplexity and norm of every condition that the paper gives figures for: ours, theirs."""
    rows = tuple(
        (
            name,
            mean_and_spread([run.perplexity[-1] for run in results.runs(name)]),
            mean_and_spread([run.norm[-1] for run in results.runs(name)]),
            f"{theirs[-1]:.2f}",
            _published_norm(name),
        )
        for name, theirs in published.PERPLEXITY_129M.items()
        if results.runs(name)
    )
    if not rows:
        return None
    return Table(
        name="beside-the-paper",
        title="Beside the paper",
        caption=f"Published: 129M parameters on {published.CORPUS}. Perplexities of another corpus "
        "or vocabulary do not compare; their order does.",
        columns=(
            Column("condition"),
            Column("final perplexity", numeric=True),
            Column("final norm", numeric=True),
            Column("published perplexity", numeric=True),
            Column("published norm", numeric=True),
        ),
        rows=rows,
    )


TABLES: tuple[Callable[[Results], Table | None], ...] = (exits, norms, claims, beside_the_paper)


def ours(claim: Judgement) -> str:
    """Return what was measured, over the seeds."""
    return f"{mean_and_spread(claim.values)}{claim.unit}" if claim.n else "–"


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
    rendered = RichTable(title=table.title, caption=table.caption, box=box.SIMPLE_HEAD, pad_edge=False)
    rendered.title_justify = rendered.caption_justify = "left"
    for i in shown:
        heading, whole = table.columns[i].heading, i in (0, len(table.columns) - 1)
        justify: JustifyMethod = "right" if table.columns[i].numeric else "left"
        rendered.add_column(heading, justify=justify, no_wrap=whole, min_width=len(heading.split()[0]))
    for row in table.rows:
        rendered.add_row(*(row[i] for i in shown), style=VERDICT_STYLES.get(row[-1]))
    return rendered


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _by_condition(results: Results, cells: Callable[[tuple[Run, ...]], list[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, *cells(condition.runs)) for name, condition in results.conditions.items() if condition.runs)


def _count(runs: tuple[Run, ...]) -> str:
    diverged = sum(run.diverged for run in runs)
    return f"{len(runs)} ({diverged} diverged)" if diverged else str(len(runs))


def _over(results: Results) -> str:
    return "Mean ± standard deviation over seeds." if len(results.seeds) > 1 else "One seed."


def _published_norm(name: str) -> str:
    known = {
        "per_loop-rmsnorm": f"{published.RMSNORM_FINAL_NORM['129M']:,}",
        "per_loop-raw": published.RAW_FINAL_NORM,
        "per_loop-rmsnorm-penalty": "{} to {}".format(*published.PENALTY_FINAL_NORM),
    }
    return known.get(name, "–")
