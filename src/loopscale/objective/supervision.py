"""Supervision: which exits the loss sees, and how their cross-entropies become one number. Pure functions.

Shapes: token losses and gates are (K, batch, seq); a token whose label is ignored has loss 0 and mask False. `count` is
the number of tokens the mean is taken over: those of this batch, or of the whole step under gradient accumulation.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from loopscale.errors import InputError, unknown

TokenLosses = Float[Tensor, "loops batch seq"]
Gates = Float[Tensor, "loops batch seq"]
Mask = Bool[Tensor, "batch seq"]
Count = Shaped[Tensor, ""] | float | int


class Supervision(ABC):
    """Which exits are supervised, and the loss over them, which is linear in the token losses."""

    name: ClassVar[str]

    @abstractmethod
    def supervises(self, k: int, num_loops: int) -> bool:
        """Return whether the loss sees exit k (from 0) of `num_loops`."""

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
    entropy_coef: float

    def supervises(self, k: int, num_loops: int) -> bool:
        """Return True: every exit has some probability."""
        return True

    def loss(self, token_losses: TokenLosses, gates: Gates | None, mask: Mask, count: Count) -> Float[Tensor, ""]:
        """Return the expected cross-entropy minus the weighted entropy, averaged over unmasked tokens."""
        if gates is None:
            raise ValueError("exit_gate supervision needs the gates of every loop")
        p = exit_distribution(gates)
        entropy = -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(0)  # (B, T); clamped for its gradient at 0
        per_token = (p * token_losses).sum(0) - self.entropy_coef * entropy
        return (per_token * mask).sum() / count


def exit_distribution(gates: Gates) -> Float[Tensor, "loops batch seq"]:
    """Return the probability of leaving at each loop, (K, batch, seq), which sums to 1 over loops.

    Loop k is left with probability gate_k if it was reached; the last loop takes what remains (Ouro).
    """
    stay = torch.cumprod(1 - gates[:-1], 0)  # (K - 1, B, T)
    reached = torch.cat([torch.ones_like(gates[:1]), stay])
    return reached * torch.cat([gates[:-1], torch.ones_like(gates[:1])])


def build_supervision(name: str, weights: Sequence[float] | None = None, entropy_coef: float = 0.0) -> Supervision:
    """Return the supervision of that name: `terminal`, `per_loop` or `exit_gate`. Raises `InputError` for others."""
    built: Mapping[str, Supervision] = {
        "terminal": Terminal(),
        "per_loop": PerLoop(None if weights is None else tuple(weights)),
        "exit_gate": ExitGate(entropy_coef),
    }
    if name not in built:
        raise unknown("supervision", name, built)
    return built[name]
