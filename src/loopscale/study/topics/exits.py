"""Exits: the perplexity of every trained exit, and what its loss and the control of scale are worth."""

from loopscale.display import Column, Table, mean_and_spread, number

from .. import published
from ..best_rates import sentence_by_name, table_by_name
from ..cells import by_condition, columns_of_conditions, count_of, mean_of, seeds_said
from ..results import Results, Run
from ..topic import Claim, Topic, against, at_least, at_most, below, per_seed, ratio_of_perplexities

TERMINAL = "terminal-rmsnorm"
PLAIN = "per_loop-rmsnorm"


def final_perplexity_ratio(run: Run, other: Run) -> float:
    """Return the final perplexity of `run` over that of `other`, from the losses, which cannot overflow."""
    return ratio_of_perplexities(run.cross_entropy[-1] - other.cross_entropy[-1])


def first_exit_ratio(run: Run) -> float:
    """Return the perplexity of exit 1 over that of the last exit, from the losses, which cannot overflow."""
    return ratio_of_perplexities(run.cross_entropy[0] - run.cross_entropy[-1])


def exits(results: Results) -> Table:
    """Table 1: perplexity at every exit and the final norm, one row per condition."""
    names = [f"exit {k}" for k in range(1, results.num_loops + 1)]

    def cells(runs: tuple[Run, ...]) -> list[str]:
        perplexities = [mean_and_spread([run.perplexity[k] for run in runs]) for k in range(results.num_loops)]
        return [*perplexities, mean_and_spread([run.norm[-1] for run in runs]), count_of(runs)]

    return Table(
        name="table-1",
        title="Table 1: perplexity at every exit, and the final norm",
        caption=f"Validation split; norm: mean ‖H_{results.num_loops}‖ of its tokens. {seeds_said(results)}",
        columns=columns_of_conditions(*names, "final norm", "seeds"),
        rows=by_condition(results, cells),
    )


@table_by_name
def beside_the_paper(results: Results) -> Table | None:
    """Final perplexity and norm of every condition that the paper gives figures for: ours, theirs."""
    rows = tuple(
        (
            name,
            mean_and_spread([run.perplexity[-1] for run in results.runs(name)]),
            mean_and_spread([run.norm[-1] for run in results.runs(name)]),
            f"{theirs[-1]:.2f}",
            published.final_norm_words(name) or "–",
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
            *(Column(name, numeric=True) for name in ("final perplexity", "final norm")),
            *(Column(name, numeric=True) for name in ("published perplexity", "published norm")),
        ),
        rows=rows,
    )


@sentence_by_name
def exits_sentence(results: Results) -> str | None:
    """Say how usable exit 1 is, by where the loss was applied."""
    parts = [
        f"exit 1 of {name} has {number(ratio)} times the perplexity of its last exit"
        for name in (PLAIN, TERMINAL)
        if (ratio := mean_of(results.runs(name), first_exit_ratio)) is not None
    ]
    return f"The exits: {'; '.join(parts)}." if parts else None


_RMSNORM_EXITS = published.PERPLEXITY_129M[PLAIN]


def _lower_perplexity(id: str, condition: str, what: str) -> Claim:
    theirs, base = published.PERPLEXITY_129M[condition][-1], _RMSNORM_EXITS[-1]
    return Claim(
        id=f"lower-perplexity-{id}",
        statement=f"{what} end at a lower perplexity than plain RMSNorm readouts at the same depth.",
        measure=per_seed(final_perplexity_ratio, condition, PLAIN),
        threshold=below(1.0),
        published=against(theirs, base),
        remark="Published at 129M; a small model after a few hundred steps need not show it.",
        trained_apart=True,
    )


TOPIC: Topic[None] = Topic(
    name="exits",
    heading="Table 1",
    place=10,
    claims=(
        Claim(
            id="terminal-exit1-unusable",
            statement="Terminal cross-entropy leaves exit 1 unusable: many times the last exit's perplexity.",
            measure=per_seed(first_exit_ratio, TERMINAL),
            threshold=at_least(10.0),
            published="stated in the paper",
        ),
        Claim(
            id="per_loop-exit1-usable",
            statement="Per-loop cross-entropy trains the exits: exit 1 comes close to the last one's perplexity.",
            measure=per_seed(first_exit_ratio, PLAIN),
            threshold=at_most(1.25),
            published=against(_RMSNORM_EXITS[0], _RMSNORM_EXITS[-1]),
        ),
        _lower_perplexity("raw", "per_loop-raw", "Raw readouts"),
        _lower_perplexity("final_rmsnorm", "per_loop-final_rmsnorm", "Raw readouts with a normalised last exit"),
        _lower_perplexity("penalty", "per_loop-rmsnorm-penalty", "RMSNorm readouts with a norm penalty"),
    ),
    tables=(exits, beside_the_paper),
    sentence=exits_sentence,
)
