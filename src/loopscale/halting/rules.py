"""Halting rules: one small object each, which scores how safe it is for a token to stop at an exit.

Every rule gives each token a score at each exit; higher means safer to stop, and a token stops at the first exit whose
score reaches the threshold. Distances and entropies are therefore negated.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscale.errors import InputError, unknown
from loopscale.facts import Reads, facts_of
from loopscale.stepping import Logits, Looped, State
from loopscale.system.precision import widened

Scores = Float[Tensor, "batch seq"]
Real = Bool[Tensor, "batch seq"]  # which tokens do not fill a row
Level = Literal["sequence", "token"]
NEVER = -math.inf  # the score of an exit that a rule cannot judge


@dataclass(frozen=True)
class Exit:
    """What is known at exit k (from 0) of the tokens that still run: the state, its logits and the rule's scores.

    `logits` may be None for a rule that does not read them.
    """

    k: int
    z: State
    logits: Logits | None = None
    scores: Scores | None = None

    def rows(self, index: Tensor) -> "Exit":
        """Return the same exit for some rows of the batch (an index or a boolean mask)."""
        return Exit(
            self.k,
            self.z[index],
            None if self.logits is None else self.logits[index],
            None if self.scores is None else self.scores[index],
        )


def is_gated(model: Looped | Any) -> bool:
    """Return whether the model has an exit gate."""
    return facts_of(model).gate is not None


class HaltingRule(ABC):
    """How safe it is for a token to stop at an exit."""

    name: ClassVar[str]
    reads_logits: ClassVar[bool] = True
    reads_before: ClassVar[bool] = False  # whether its score needs the exit one loop earlier

    @abstractmethod
    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return the score of every token at exit `now`, in float32 or better; higher is safer to stop.

        `before` is the exit one loop earlier with its scores (None at the first exit).
        """

    def applies_to(self, model: Looped | Any) -> bool:
        """Return whether the model has what the rule reads."""
        return True

    def require_fit(self, model: Looped | Any) -> None:
        """Raise `InputError` where the model has not what the rule reads."""
        if not self.applies_to(model):
            raise self.misfit()

    def misfit(self, model: str = "this model") -> InputError:
        """Return what to tell where the model, by its name, has not what the rule reads."""
        return InputError(
            f"the halting rule '{self.name}' does not fit {model}: it has no exit gate, choose another rule."
        )


@final
class FixedExit(HaltingRule):
    """The same score for every token at every exit: with a first exit, "always that one", which a rule is to beat."""

    name = "fixed_exit"
    reads_logits = False

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return zeros."""
        return torch.zeros(now.z.shape[:-1], dtype=widened(now.z.dtype), device=now.z.device)


@final
class LogitMargin(HaltingRule):
    """Largest logit minus the second largest, in nats."""

    name = "logit_margin"

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return top1 - top2."""
        top = _wide(now.logits).topk(2, dim=-1).values
        return top[..., 0] - top[..., 1]


@final
class MaxProbability(HaltingRule):
    """Probability of the likeliest next token."""

    name = "max_probability"

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return max softmax."""
        return _wide(now.logits).softmax(-1).amax(-1)


@final
class NegativeEntropy(HaltingRule):
    """Minus the entropy of the next-token distribution, in nats."""

    name = "entropy"

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return sum p log p, as sum p * logits - logsumexp: one exponential per logit."""
        logits = _wide(now.logits)
        return torch.linalg.vecdot(logits.softmax(-1), logits) - logits.logsumexp(-1)


@final
class NegativeKL(HaltingRule):
    """Minus KL(p_k || p_{k-1}) between the distributions of two consecutive exits, in nats; never stops at exit 1."""

    name = "kl"
    reads_before = True

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return sum p_k (log p_{k-1} - log p_k)."""
        if before is None:
            return _never(now.z)
        logits, previous = _wide(now.logits), _wide(before.logits)
        change = torch.linalg.vecdot(logits.softmax(-1), previous - logits)
        return change + logits.logsumexp(-1) - previous.logsumexp(-1)


@final
class NegativeStateChange(HaltingRule):
    """Minus the relative change of the state, ||z_k - z_{k-1}|| / ||z_k||, of 2 at most; never stops at exit 1.

    More is only reached where the state shrinks; without an end, one token whose state has nearly no length would hold
    up the mean of its whole sequence.

    Needs no head. Where scale grows unseen (a blind spot) this falls with the scale, whatever the prediction does.
    """

    name = "state_change"
    reads_logits = False
    reads_before = True

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return -min(||z_k - z_{k-1}|| / ||z_k||, 2)."""
        if before is None:
            return _never(now.z)
        z, change = _wide(now.z), _wide(now.z - before.z)
        tiny = torch.finfo(z.dtype).tiny
        share = torch.linalg.vector_norm(change, dim=-1) / torch.linalg.vector_norm(z, dim=-1).clamp_min(tiny)
        return -share.clamp_max(2.0)


@final
class CumulativeExitGate(HaltingRule):
    """The exit gate's cumulative probability of having left by exit k (Ouro's rule): 1 - prod_j (1 - gate_j).

    Kept below 1, so that a threshold of 1 means full depth as in Ouro. Needs no head.
    """

    name = "exit_gate"
    reads_logits = False
    reads_before = True

    def scores(self, model: Looped, now: Exit, before: Exit | None) -> Scores:
        """Return the cumulative exit probability."""
        gate = Reads(model).gate
        if gate is None:
            raise self.misfit()
        left = _wide(gate(now.z, now.k))
        if before is not None:
            assert before.scores is not None  # whoever runs the loops keeps the scores of the exit before
            left = 1 - (1 - before.scores) * (1 - left)
        return left.clamp_max(1 - torch.finfo(left.dtype).eps)

    def applies_to(self, model: Looped | Any) -> bool:
        """Return whether there is a gate."""
        return is_gated(model)


RULES: Mapping[str, HaltingRule] = {
    rule.name: rule
    for rule in (
        FixedExit(),
        LogitMargin(),
        MaxProbability(),
        NegativeEntropy(),
        NegativeKL(),
        NegativeStateChange(),
        CumulativeExitGate(),
    )
}


def rule_named(name: str) -> HaltingRule:
    """Return a rule by name. Raises `InputError` for an unknown one."""
    if name not in RULES:
        raise unknown("halting rule", name, RULES)
    return RULES[name]


def row_means(scores: Float[Tensor, "*exits batch seq"], real: Real | None = None) -> Float[Tensor, "*exits batch 1"]:
    """Return the mean score of every row's tokens, of which `real` are no filling (all by default)."""
    if real is None:
        return scores.mean(-1, keepdim=True)
    total = torch.where(real, scores, 0.0).sum(-1, keepdim=True)
    return total / real.sum(-1, keepdim=True).clamp_min(1)


def _wide(x: Tensor | None) -> Tensor:
    """Return the tensor in float32 or better."""
    assert x is not None  # a rule that reads logits says so, and whoever runs it gives them
    return x.to(widened(x.dtype))


def _never(z: State) -> Scores:
    return torch.full(z.shape[:-1], NEVER, dtype=widened(z.dtype), device=z.device)
