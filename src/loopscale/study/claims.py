"""Claims: every statement that a study judges, first those on norms and perplexities of the trained models.

A further claim is one more `Claim` in one of the lists; nothing else needs to know it.
"""

from dataclasses import replace

from . import published
from .audit_claims import AUDIT_CLAIMS
from .claim import Claim, against, at_least, at_most, below, per_seed, ratio_of_perplexities
from .depth_claims import DEPTH_CLAIMS
from .results import Results, Run


def judged(results: Results) -> Results:
    """Return `results` with every claim judged by its runs."""
    return replace(results, claims=tuple(claim.judge(results) for claim in CLAIMS))


def final_norm(run: Run) -> float:
    """Return ||H_K||, the mean norm of the state after the last trained loop."""
    return run.norm[-1]


def norm_ratio(run: Run, other: Run) -> float | None:
    """Return how many times larger the final norm of `run` is; None where the other norm is zero."""
    return final_norm(run) / final_norm(other) if final_norm(other) else None


def growth_past_depth(run: Run) -> float | None:
    """Return the norm at the deepest loop measured over the norm at the trained depth."""
    return run.norm_by_depth[-1] / final_norm(run) if final_norm(run) else None


def final_perplexity_ratio(run: Run, other: Run) -> float:
    """Return the final perplexity of `run` over that of `other`, from the losses, which cannot overflow."""
    return ratio_of_perplexities(run.cross_entropy[-1] - other.cross_entropy[-1])


def first_exit_ratio(run: Run) -> float:
    """Return the perplexity of exit 1 over that of the last exit, from the losses, which cannot overflow."""
    return ratio_of_perplexities(run.cross_entropy[0] - run.cross_entropy[-1])


_NORMS = ", ".join(f"{norm:,} ({size})" for size, norm in published.RMSNORM_FINAL_NORM.items())
_PENALTY_NORMS = "{} to {}".format(*published.PENALTY_FINAL_NORM)
_RMSNORM_EXITS = published.PERPLEXITY_129M["per_loop-rmsnorm"]


def _lower_perplexity(id: str, condition: str, what: str) -> Claim:
    theirs, base = published.PERPLEXITY_129M[condition][-1], _RMSNORM_EXITS[-1]
    return Claim(
        id=f"lower-perplexity-{id}",
        statement=f"{what} end at a lower perplexity than plain RMSNorm readouts at the same depth.",
        measure=per_seed(final_perplexity_ratio, condition, "per_loop-rmsnorm"),
        threshold=below(1.0),
        published=against(theirs, base),
        remark="Published at 129M; a small model after a few hundred steps need not show it.",
    )


TRAINING_CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="norm-ratio-raw",
        statement="Behind RMSNorm the per-loop loss lets the norm run away: many times that of raw readouts.",
        measure=per_seed(norm_ratio, "per_loop-rmsnorm", "per_loop-raw"),
        threshold=at_least(10.0),
        published=f"{_NORMS} against {published.RAW_FINAL_NORM}",
    ),
    Claim(
        id="norm-ratio-penalty",
        statement="A penalty that sees the scale controls it: without one the norm is many times larger.",
        measure=per_seed(norm_ratio, "per_loop-rmsnorm", "per_loop-rmsnorm-penalty"),
        threshold=at_least(10.0),
        published=f"{_NORMS} against {_PENALTY_NORMS}",
    ),
    Claim(
        id="penalty-bounds-norm",
        statement="The norm penalty keeps the final norm bounded.",
        measure=per_seed(final_norm, "per_loop-rmsnorm-penalty"),
        threshold=below(100.0),
        published=_PENALTY_NORMS,
        unit="",
    ),
    Claim(
        id="terminal-exit1-unusable",
        statement="Terminal cross-entropy leaves exit 1 unusable: many times the last exit's perplexity.",
        measure=per_seed(first_exit_ratio, "terminal-rmsnorm"),
        threshold=at_least(10.0),
        published="stated in the paper",
    ),
    Claim(
        id="per_loop-exit1-usable",
        statement="Per-loop cross-entropy trains the exits: exit 1 comes close to the last one's perplexity.",
        measure=per_seed(first_exit_ratio, "per_loop-rmsnorm"),
        threshold=at_most(1.25),
        published=against(_RMSNORM_EXITS[0], _RMSNORM_EXITS[-1]),
    ),
    _lower_perplexity("raw", "per_loop-raw", "Raw readouts"),
    _lower_perplexity("final_rmsnorm", "per_loop-final_rmsnorm", "Raw readouts with a normalised last exit"),
    _lower_perplexity("penalty", "per_loop-rmsnorm-penalty", "RMSNorm readouts with a norm penalty"),
    Claim(
        id="inter-loop-norm",
        statement="An inter-loop norm takes scale out of the loop: past the trained depth the norm no longer grows.",
        measure=per_seed(growth_past_depth, "per_loop-rmsnorm-normed"),
        threshold=at_most(1.1),
        published=None,
    ),
)

CLAIMS: tuple[Claim, ...] = (*TRAINING_CLAIMS, *DEPTH_CLAIMS, *AUDIT_CLAIMS)
