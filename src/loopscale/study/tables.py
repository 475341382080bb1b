"""Tables: Table 1, the norms, the claims, the paper's figures beside ours; and the list of all tables.

A further table is one more function in `TABLES` that returns a `Table`, or None where the results lack its
data.
"""

from collections.abc import Callable

from . import published
from .audit_tables import audit, norm_distribution
from .depth_tables import depth, halting, safe_range
from .results import Judgement, Results, Run
from .summary import mean_and_spread
from .table import Column, Table, by_condition, count, over


def exits(results: Results) -> Table:
    """Table 1: perplexity at every exit and the final norm, one row per condition."""
    names = [f"exit {k}" for k in range(1, results.num_loops + 1)]

    def cells(runs: tuple[Run, ...]) -> list[str]:
        perplexities = [mean_and_spread([run.perplexity[k] for run in runs]) for k in range(results.num_loops)]
        return [*perplexities, mean_and_spread([run.norm[-1] for run in runs]), count(runs)]

    return Table(
        name="table-1",
        title="Table 1: perplexity at every exit, and the final norm",
        caption=f"Validation split; norm: mean ‖H_{results.num_loops}‖ of its tokens. {over(results)}",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in (*names, "final norm", "seeds")),
        ),
        rows=by_condition(results, cells),
    )


def norms(results: Results) -> Table:
    """The norm of the state at every loop, one row per condition."""

    def cells(runs: tuple[Run, ...]) -> list[str]:
        return [
            *(mean_and_spread([run.norm[k] for run in runs]) for k in range(results.num_loops)),
            count(runs),
        ]

    loops = [f"loop {k}" for k in range(1, results.num_loops + 1)]
    return Table(
        name="norms",
        title="Norm of the state at every loop",
        caption=f"Mean ‖H_k‖ over the tokens of the validation split. {over(results)}",
        columns=(
            Column("condition"),
            *(Column(name, numeric=True) for name in (*loops, "seeds")),
        ),
        rows=by_condition(results, cells),
        section="norms",
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
        section="claims",
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


TABLES: tuple[Callable[[Results], Table | None], ...] = (
    exits,
    beside_the_paper,
    claims,
    norms,
    norm_distribution,
    audit,
    depth,
    safe_range,
    halting,
)


def ours(claim: Judgement) -> str:
    """Return what was measured, over the seeds."""
    return f"{mean_and_spread(claim.values)}{claim.unit}" if claim.n else "–"


def _published_norm(name: str) -> str:
    known = {
        "per_loop-rmsnorm": f"{published.RMSNORM_FINAL_NORM['129M']:,}",
        "per_loop-raw": published.RAW_FINAL_NORM,
        "per_loop-rmsnorm-penalty": "{} to {}".format(*published.PENALTY_FINAL_NORM),
    }
    return known.get(name, "–")
