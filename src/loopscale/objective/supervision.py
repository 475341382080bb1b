"""Supervision: which exits the loss sees, and how their cross-entropies become one number. Pure functions.

Shapes: token losses and gates are (K, batch, seq); a token whose label is ignored has loss 0 and mask False. `count` is
the number of tokens the mean is taken over: those of this batch, or of the whole step under gradient accumulation.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from loopscale.errors import InputError
from loopscale.mechanism import Mechanism, Named, choose

TokenLosses = Float[Tensor, "loops batch seq"]
Gates = Float[Tensor, "loops batch seq"]
Mask = Bool[Tensor, "batch seq"]
Count = Shaped[Tensor, ""] | float | int


@dataclass(frozen=True)
class Told:
    """What a configuration says beside the supervision's name."""

    loop_weights: tuple[float, ...] | None = None
    entropy_coef: float = 0.0


class Supervision(Mechanism, ABC):
    """Which exits are supervised, and the loss over them, which is linear in the token losses."""

    name: ClassVar[str]
    gated: ClassVar[bool] = False  # whether it trains an exit gate
    changes: ClassVar[bool] = False  # whether it is another one at another time of training

    @classmethod
    def build(cls, arguments: Any, told: Told) -> "Supervision":
        """Return the supervision of these arguments."""
        return cls()

    @abstractmethod
    def supervises(self, k: int, num_loops: int) -> bool:
        """Return whether the loss sees exit k (from 0) of `num_loops`, at any time of training."""

    def at(self, progress: float | None) -> "Supervision":
        """Return the supervision that holds when this share of training is done; None: the time is not known."""
        return self

    @abstractmethod
    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the loss in nats per token."""


@final
@dataclass(frozen=True)
class Terminal(Supervision):
    """Cross-entropy at the last loop alone."""

    name: ClassVar[str] = "terminal"

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return whether k is the last loop."""
        return k == num_loops - 1

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the last exit."""
        return token_losses[-1].sum() / count


@final
@dataclass(frozen=True)
class PerLoop(Supervision):
    """Mean cross-entropy over loops, or a weighted mean (arXiv 2606.24898: equal weights)."""

    name: ClassVar[str] = "per_loop"
    weights: tuple[float, ...] | None = None

    @classmethod
    def build(cls, arguments: Any, told: Told) -> "Supervision":
        """Return it with the weights that a configuration gives."""
        return cls(told.loop_weights)

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return whether exit k has a weight; exits past the last weight have none."""
        return self.weights is None or (k < len(self.weights) and self.weights[k] != 0)

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the weighted mean over exits of their mean cross-entropy; weights are normalised to sum 1.

        Raises `InputError` if no exit that ran has a weight.
        """
        per_exit = token_losses.sum((1, 2)) / count
        if self.weights is None:
            return per_exit.mean()
        weights = self.weights[: len(per_exit)]
        total = sum(weights)
        if not total:
            raise InputError(f"loop_weights give no exit of the first {len(per_exit)} any weight: run more loops.")
        return torch.stack([w / total * exit_ for w, exit_ in zip(weights, per_exit, strict=False)]).sum()


@final
@dataclass(frozen=True)
class ExitGate(Supervision):
    """Expected cross-entropy under the gate's exit distribution, minus `entropy_coef` times its entropy (Ouro)."""

    name: ClassVar[str] = "exit_gate"
    gated: ClassVar[bool] = True
    entropy_coef: float = 0.0

    @classmethod
    def build(cls, arguments: Any, told: Told) -> "Supervision":
        """Return it with the weight of the entropy that a configuration gives."""
        return cls(told.entropy_coef)

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return True: every exit has some probability."""
        return True

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the expected cross-entropy minus the weighted entropy, averaged over unmasked tokens."""
        p = _distribution_of(gates, self.name)
        entropy = -(p * _log(p)).sum(0)  # (B, T)
        per_token = (p * token_losses).sum(0) - self.entropy_coef * entropy
        return (per_token * mask).sum() / count


@dataclass(frozen=True)
class Balance:
    """The weight of the divergence in the loss, and the prior: uniform, or geometric (a gate that is always `rate`)."""

    coefficient: float = 0.05
    prior: Literal["uniform", "geometric"] = "uniform"
    rate: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.coefficient < math.inf:
            raise InputError(f"coefficient is {self.coefficient}: give 0 or more.")
        if not 0 < self.rate < 1:
            raise InputError(f"rate is {self.rate}: give a probability above 0 and below 1.")

    def over(self, gates: Gates) -> Float[Tensor, " loops"]:
        """Return the prior over as many loops as there are gates."""
        if self.prior == "uniform":
            return gates.new_full((len(gates),), 1 / len(gates))
        return exit_distribution(gates.new_full((len(gates), 1, 1), self.rate)).flatten()


@final
@dataclass(frozen=True)
class BatchExitGate(Supervision):
    """Expected cross-entropy plus `coefficient` times KL(mean over tokens of p || prior) (arXiv 2610.09013).

    It asks how often each loop is left, not that every token be undecided: tokens that are sure of different loops cost
    nothing, where Ouro's entropy of each token (`exit_gate`) draws them all to one distribution. The mean is over the
    tokens of one forward: of a micro-batch, where batches are split, and of one process.
    """

    name: ClassVar[str] = "batch_exit_gate"
    gated: ClassVar[bool] = True
    Arguments: ClassVar[type] = Balance
    balance: Balance = Balance()

    @classmethod
    def build(cls, arguments: Any, told: Told) -> "Supervision":
        """Return it with its arguments."""
        return cls(arguments)

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return True: every exit has some probability."""
        return True

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the expected cross-entropy over unmasked tokens, plus the weighted divergence of their mean."""
        p = _distribution_of(gates, self.name)
        tokens = mask.sum()
        mean = (p * mask).sum((1, 2)) / tokens.clamp_min(1)
        divergence = (mean * (_log(mean) - _log(self.balance.over(p)))).sum()
        expected = ((p * token_losses).sum(0) * mask).sum()
        return (expected + self.balance.coefficient * tokens * divergence) / count


@dataclass(frozen=True)
class Annealing:
    """The last share of training, in which only the last exit is supervised."""

    share: float = 0.2

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.share < 1:
            raise InputError(f"share is {self.share}: give a number above 0 and below 1.")


@final
@dataclass(frozen=True)
class Annealed(Supervision):
    """Per loop, and in the last `share` of training terminal: the exits are taught first, then the deepest alone.

    Where the time is not known, as outside training, it is that of the exits: per loop.
    """

    name: ClassVar[str] = "annealed"
    changes: ClassVar[bool] = True
    Arguments: ClassVar[type] = Annealing
    share: float = Annealing.share
    weights: tuple[float, ...] | None = None

    @classmethod
    def build(cls, arguments: Any, told: Told) -> "Supervision":
        """Return it with its share, and the weights that a configuration gives."""
        return cls(arguments.share, told.loop_weights)

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return whether exit k has a weight while every exit is supervised, or is the last."""
        return k == num_loops - 1 or PerLoop(self.weights).supervises(k, num_loops)

    def at(self, progress: float | None) -> Supervision:
        """Return per loop, or terminal in the last share of training."""
        last = progress is not None and progress >= 1 - self.share - 1e-9  # the end of a step is a rounded quotient
        return Terminal() if last else PerLoop(self.weights)

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the loss of before the last share."""
        return self.at(None).loss(token_losses, gates, mask, count)


def _distribution_of(gates: Gates | None, name: str) -> Float[Tensor, "loops batch seq"]:
    if gates is None:
        raise ValueError(f"{name} supervision needs the gates of every loop")
    return exit_distribution(gates)


def _log(p: Tensor) -> Tensor:
    """Return the logarithm, whose gradient at 0 is finite."""
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()


def exit_distribution(gates: Gates) -> Float[Tensor, "loops batch seq"]:
    """Return the probability of leaving at each loop, (K, batch, seq), which sums to 1 over loops.

    Loop k is left with probability gate_k if it was reached; the last loop takes what remains (Ouro).
    """
    stay = torch.cumprod(1 - gates[:-1], 0)  # (K - 1, B, T)
    reached = torch.cat([torch.ones_like(gates[:1]), stay])
    return reached * torch.cat([gates[:-1], torch.ones_like(gates[:1])])


SUPERVISIONS: Mapping[str, type[Supervision]] = {
    kind.name: kind for kind in (Terminal, PerLoop, ExitGate, BatchExitGate, Annealed)
}


def build_supervision(value: Named, weights: Sequence[float] | None = None, entropy_coef: float = 0.0) -> Supervision:
    """Return the supervision that a name, or a mapping with its arguments, stands for.

    Raises `InputError` for an unknown kind or argument, or a value out of range.
    """
    kind, arguments = choose("supervision", value, SUPERVISIONS)
    return kind.build(arguments, Told(None if weights is None else tuple(weights), entropy_coef))
