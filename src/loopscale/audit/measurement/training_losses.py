"""Losses that an audit asks: those that a model says it was trained with, and what is told of others."""

from collections.abc import Sequence

from loopscale.errors import InputError
from loopscale.facts import Facts
from loopscale.objective import Annealed, Losses, NormPenalty, PerLoop, Weighted, build_supervision


def told_losses(
    facts: Facts,
    supervision: str | None = None,
    loop_weights: Sequence[float] | None = None,
    norm_penalty_coef: float | None = None,
) -> Losses:
    """Return the losses of a model: an argument that is given wins over what the model says of itself.

    Raises `InputError` for an unknown supervision, weights of another number than loops or a negative penalty.
    """
    own, K = facts.losses, facts.trained_depth
    rule, penalties = own.exits.supervision, own.penalties
    if supervision is not None or loop_weights is not None:
        if loop_weights is None and isinstance(rule, PerLoop | Annealed):
            loop_weights = rule.weights
        rule = build_supervision(supervision or rule.name, loop_weights)
    if loop_weights is not None and len(loop_weights) != K:
        raise InputError(f"loop_weights has {len(loop_weights)} entries for {K} loops: give one per loop.")
    if norm_penalty_coef is not None:
        if not norm_penalty_coef >= 0:
            raise InputError(f"norm_penalty_coef is {norm_penalty_coef}: give 0 (no penalty) or more.")
        penalties = tuple(penalty for penalty in penalties if penalty.name != NormPenalty.name)
        if norm_penalty_coef:
            penalties = (NormPenalty(Weighted(norm_penalty_coef)), *penalties)
    return Losses.of(K, rule, penalties)
