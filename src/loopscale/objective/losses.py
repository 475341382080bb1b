"""Losses as they look at the state of a loop: at which loops, and the gradient that they send into it.

An audit asks every one of them alike, so that a new loss is a new object here and no code there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.errors import InputError
from loopscale.mechanism import Effect
from loopscale.objective.penalties import Penalty
from loopscale.objective.supervision import Supervision
from loopscale.stepping import State

Labels = Int[Tensor, "batch seq"]
TokenLosses = Float[Tensor, "batch seq"]
Reading = Callable[[State, int, Labels], TokenLosses]  # the cross-entropy of exit k, 0 where a label is ignored
Gate = Callable[[State, int], Float[Tensor, "batch seq"]]


@runtime_checkable
class Read(Protocol):
    """What a loss reads of a model in a call (`loopscale.facts.Reads`)."""

    @property
    def readings(self) -> Mapping[str, Reading]:
        """Cross-entropies of an exit, by the way in which it is read."""
        ...

    @property
    def gate(self) -> Gate | None:
        """Probability of leaving at a loop."""
        ...


class Loss(ABC):
    """A loss of a model of `num_loops` trained loops. `name` is what reports call it."""

    name: str
    num_loops: int

    @abstractmethod
    def looks(self, k: int) -> bool:
        """Return whether it looks at the state of loop k (from 0)."""

    @abstractmethod
    def gradient(self, reads: Read, z: State, k: int, labels: Labels) -> tuple[State, TokenLosses | None]:
        """Return its gradient at the state of loop k, through that loop's readout alone.

        Each token's is that of its own loss. Where it is a cross-entropy, the tokens' losses in nats come with it.
        """

    @abstractmethod
    def effect(self, coordinate: str, at_exit: Effect, carried: Effect) -> Effect:
        """Return whether it sees a coordinate, which a readout treats `at_exit` and the recurrence as `carried`."""

    @property
    def reaches_states(self) -> bool:
        """Whether any gradient of it reaches a state."""
        return True

    def described(self, k: int) -> str:
        """Return what its gradient at loop k is called in a sentence."""
        return f"the gradient of the {self.name} of loop {k + 1}"

    def require(self, reads: Read, model: object, z: State) -> None:  # noqa: B027  # most need nothing
        """Raise `InputError` where the model lacks a part that the loss needs, or it fails on the state of loop 1."""


@final
@dataclass(frozen=True)
class ExitLoss(Loss):
    """Cross-entropy of the supervised exits."""

    supervision: Supervision
    num_loops: int
    name: str = "cross-entropy"

    def looks(self, k: int) -> bool:
        """Return whether exit k is supervised when training ends: what no loss sees then is free from then on."""
        return self.supervision.at(1.0).supervises(k, self.num_loops)

    def gradient(self, reads: Read, z: State, k: int, labels: Labels) -> tuple[State, TokenLosses | None]:
        """Return the gradient of exit k's cross-entropy, and that of every token."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            losses = reads.readings["trained"](z, k, labels)
            (gradient,) = torch.autograd.grad(losses.sum(), z)
        return gradient, losses.detach()

    def effect(self, coordinate: str, at_exit: Effect, carried: Effect) -> Effect:
        """Return what the readout does."""
        return at_exit

    def described(self, k: int) -> str:
        """Return what its gradient is called."""
        return f"the gradient of exit {k + 1}"


@final
@dataclass(frozen=True)
class GateLoss(Loss):
    """Exit gate that the loss trains: it reads the state of every loop but the last, where it decides nothing."""

    num_loops: int
    name: str = "exit gate"

    def looks(self, k: int) -> bool:
        """Return whether there is a loop after k."""
        return k < self.num_loops - 1

    def gradient(self, reads: Read, z: State, k: int, labels: Labels) -> tuple[State, TokenLosses | None]:
        """Return the gradient of the gate's probability."""
        assert reads.gate is not None  # `require` was asked before
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(reads.gate(z, k).sum(), z, materialize_grads=True)
        return gradient, None

    def effect(self, coordinate: str, at_exit: Effect, carried: Effect) -> Effect:
        """Return that it sees what is carried on, for it reads the carried state."""
        return {Effect.KEEPS: Effect.SEES, Effect.REMOVES: Effect.HIDES}.get(carried, Effect.WEIGHTS)

    def described(self, k: int) -> str:
        """Return what its gradient is called."""
        return f"the gradient of the gate of loop {k + 1}"

    def require(self, reads: Read, model: object, z: State) -> None:
        """Raise `InputError` without a gate that gives (batch, seq) numbers which a gradient reaches."""
        if reads.gate is None:
            raise InputError(
                f"the supervision trains an exit gate but {type(model).__name__} has no `exit_probability(z, k)`: "
                "write it."
            )
        with torch.enable_grad():
            try:
                p = reads.gate(z.detach().requires_grad_(), 0)
            except Exception as error:  # whatever someone else's code raises
                raise InputError(f"`exit_probability(z, k)` failed with {type(error).__name__}: {error}.") from error
        if not (isinstance(p, Tensor) and p.shape == z.shape[:2] and p.requires_grad):
            found = tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__
            raise InputError(
                f"`exit_probability(z, k)` returned {found} for a state {tuple(z.shape)}: return (batch, seq) "
                "probabilities computed from the state, without detach or no_grad."
            )


@final
@dataclass(frozen=True)
class PenaltyLoss(Loss):
    """Penalty of the states of all loops."""

    penalty: Penalty
    num_loops: int

    @property
    def name(self) -> str:  # type: ignore[override]  # of the penalty, and no field
        """What the penalty is called."""
        return self.penalty.name

    @property
    def reaches_states(self) -> bool:
        """Whether it is a penalty of the states, and not of the step."""
        return not self.penalty.reads_step

    def looks(self, k: int) -> bool:
        """Return whether it looks at states: then at that of every loop."""
        return self.reaches_states

    def gradient(self, reads: Read, z: State, k: int, labels: Labels) -> tuple[State, TokenLosses | None]:
        """Return the penalty's gradient."""
        return self.penalty.gradient(z), None

    def effect(self, coordinate: str, at_exit: Effect, carried: Effect) -> Effect:
        """Return what the penalty's equation says."""
        return self.penalty.effects.get(coordinate, Effect.WEIGHTS)


@final
@dataclass(frozen=True)
class Losses:
    """All losses that trained a model: the exits' and those beside them. `num_loops` is the depth that was trained."""

    exits: ExitLoss
    others: tuple[Loss, ...] = ()

    @classmethod
    def of(cls, num_loops: int, supervision: Supervision, penalties: Sequence[Penalty] = ()) -> "Losses":
        """Return the losses of a supervision and some penalties."""
        gates = (GateLoss(num_loops),) if supervision.gated else ()
        return cls(
            ExitLoss(supervision, num_loops), (*(PenaltyLoss(penalty, num_loops) for penalty in penalties), *gates)
        )

    def __iter__(self) -> Iterator[Loss]:
        """Iterate over those that reach states."""
        return iter((self.exits, *(loss for loss in self.others if loss.reaches_states)))

    @property
    def num_loops(self) -> int:
        """Loops that were trained."""
        return self.exits.num_loops

    @property
    def supervision(self) -> str:
        """Name of the supervision."""
        return self.exits.supervision.name

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """Penalties among them."""
        return tuple(loss.penalty for loss in self.others if isinstance(loss, PenaltyLoss))

    @property
    def look_anywhere(self) -> bool:
        """Whether any of them looks at any loop."""
        return any(loss.looks(k) for loss in self for k in range(self.num_loops))
