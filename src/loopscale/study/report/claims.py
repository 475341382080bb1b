"""Claims of a report: their table, and which hold in a sentence."""

from typing import get_args

from loopscale.display import Column, Table, mean_and_spread, number

from ..best_rates import best_names, searched, usual_rate
from ..grid import PAPER, split_rate
from ..results import Judgement, Outcome, Results
from ..topic import SEED_NOISE

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
COLOURS = {"holds": "green", "does not hold": "red", "undecided": "yellow", "not tested here": "dim"}


def answer(results: Results) -> str | None:
    """Say which claims hold, which do not, and what was not decided; None without claims."""
    by_verdict = {verdict: [c.id for c in results.claims if c.verdict == verdict] for verdict in OUTCOMES}
    words: dict[Outcome, tuple[str, str]] = {  # of one claim, and of several
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "undecided": ("is not decided", "are not decided"),
    }
    judged = {verdict: ids for verdict in words if (ids := by_verdict[verdict])}
    said = [f"{len(ids)} {words[v][len(ids) > 1]} ({', '.join(ids)})" for v, ids in judged.items()]
    untested = len(by_verdict["not tested here"])
    said += [f"{untested} not tested here"] if untested and said else []
    at_rates = f", each condition at the best of its learning rates ({named})" if (named := rates_said(results)) else ""
    return f"The claims{at_rates}: {'; '.join(said)}." if said else None


def rates_said(results: Results) -> str:
    """Say at which rates claims take the conditions, where that is not the rate of the study; else nothing."""
    if not searched(results):
        return ""
    rates = {condition: split_rate(name)[1] or usual_rate(results) for condition, name in best_names(results).items()}
    return ", ".join(f"{name} at {rates[name]:g}" for name in PAPER if name in rates)


def counts(claims: tuple[Judgement, ...]) -> dict[Outcome, int]:
    """Return how many claims have each verdict."""
    verdicts = [claim.verdict for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in OUTCOMES}


def tested(results: Results) -> bool:
    """Return whether any claim is tested; those of the paper are not by a study of another grid."""
    return any(claim.verdict != "not tested here" for claim in results.claims)


def claims_table(results: Results) -> Table | None:
    """Every claim with its figure, threshold and verdict."""
    if not tested(results):
        return None
    at_rates = f" Each condition is at the best of its learning rates: {said}." if (said := rates_said(results)) else ""
    return Table(
        name="claims",
        title="Claims",
        caption="Ours: mean ± standard deviation over seeds, the noise of one run. Interval: 95%, of the mean, by "
        "Student's t over seeds, of ratios in logarithms. Seeds: those that meet the threshold alone. Undecided: the "
        f"interval holds the threshold, or one seed lies within a factor {SEED_NOISE:g} of it where the losses of "
        f"models trained apart are compared.{at_rates}",
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
