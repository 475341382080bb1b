"""Penalties: losses that look at the state itself, at every loop, whatever the readout hides, or at the loop's step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.mechanism import Effect, Mechanism, Named, choose, kind_of
from loopscale.objective.onward import OneMoreLoop
from loopscale.objective.supervision import Count
from loopscale.state import PerToken, energy, scale
from loopscale.stepping import State


@runtime_checkable
class Penalised(Protocol):
    """A configuration that says which penalties train with the exits."""

    norm_penalty_coef: float
    penalties: Sequence[Named] | None


@dataclass(frozen=True)
class Weighted:
    """The weight of a penalty in the loss (arXiv 2606.24898: 0.01)."""

    coefficient: float = 0.01

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.coefficient < math.inf:
            raise InputError(f"coefficient is {self.coefficient}: give 0 or more.")


class Penalty(Mechanism, ABC):
    """A loss of the states, the mean over loops and tokens of a value of each. `name` is what reports call it.

    One that `reads_step` is a loss of the step instead: it is made for a call by `of_step`, looks at what one more loop
    does to the last state, and takes that state for a constant, so that no gradient of it reaches a state.
    """

    name: ClassVar[str]
    reads_step: ClassVar[bool] = False
    Arguments: ClassVar[type] = Weighted

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments
        self.coefficient: float = arguments.coefficient

    @abstractmethod
    def value(self, z: State) -> PerToken:
        """Return the penalty of every token's state, before the coefficient; differentiable."""

    def of_step(self, onward: OneMoreLoop) -> "Penalty":
        """Return the penalty of a call whose last state goes on by `onward`."""
        return self

    def __call__(self, states: Sequence[State], mask: Bool[Tensor, "batch seq"], count: Count) -> Float[Tensor, ""]:
        """Return the loss. Tokens outside the mask do not count; `count` is the number that the mean is taken over."""
        return self.coefficient * (torch.stack([(self.value(z) * mask).sum() for z in states]).mean() / count)

    def gradient(self, z: State) -> State:
        """Return the gradient of every token's value, coefficient included, by its state."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.coefficient * self.value(z).sum(), z)
        return gradient


@final
class NormPenalty(Penalty):
    """lambda mean_c z_c^2 = lambda s^2 (arXiv 2606.24898): sees scale when no readout does."""

    name: ClassVar[str] = "norm penalty"
    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.SEES, "mean": Effect.SEES}

    def value(self, z: State) -> PerToken:
        """Return s^2."""
        return energy(z)


@dataclass(frozen=True)
class Anchored(Weighted):
    """The weight of the penalty, and the scale tau it draws every token's state to."""

    target: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.target < math.inf:
            raise InputError(f"target is {self.target}: give a scale of 0 or more.")


@final
class AnchorPenalty(Penalty):
    """lambda (s - tau)^2: draws the scale to a target instead of to zero."""

    name: ClassVar[str] = "scale anchor"
    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.SEES, "mean": Effect.SEES}
    Arguments: ClassVar[type] = Anchored

    def value(self, z: State) -> PerToken:
        """Return (s - tau)^2."""
        return (scale(z) - self.arguments.target).square()


@final
class JacobianPenalty(Penalty):
    """lambda ||J v||^2 / n, J of one more loop at the last state, n numbers of it (STARS, arXiv 2605.26733).

    It draws what a loop makes of small differences towards nothing, so that states settle. v is random, N(0, 1), drawn
    anew in every call in training; as in that paper's code the product is taken from the other side, v J, which has the
    same mean, ||J||_F^2 / n, and the state is a constant. So it shapes the weights of the loop and sees no variable of
    the state. Tokens outside the mask have v = 0. With a drawn depth the last state is that of any loop.
    """

    name: ClassVar[str] = "jacobian penalty"
    reads_step: ClassVar[bool] = True
    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.HIDES, "mean": Effect.HIDES}

    def __init__(self, arguments: Any, onward: OneMoreLoop | None = None) -> None:
        super().__init__(arguments)
        self.onward = onward

    def of_step(self, onward: OneMoreLoop) -> Penalty:
        """Return the penalty of a call."""
        return JacobianPenalty(self.arguments, onward)

    def value(self, z: State) -> PerToken:
        """Return mean_c (v J)_c^2 of every token."""
        return self._value(z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device))

    def __call__(self, states: Sequence[State], mask: Bool[Tensor, "batch seq"], count: Count) -> Float[Tensor, ""]:
        """Return the loss."""
        return self.coefficient * self._value(states[-1], mask).sum() / count

    def gradient(self, z: State) -> State:
        """Return zeros: the state is a constant."""
        return torch.zeros_like(z)

    def _value(self, z: State, mask: Bool[Tensor, "batch seq"]) -> PerToken:
        assert self.onward is not None  # `of_step` was called
        drawn = None if self.onward.drawn else torch.Generator(z.device).manual_seed(0)
        v = torch.randn(z.shape, generator=drawn, dtype=z.dtype, device=z.device) * mask[..., None]
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.onward(z), z, v, create_graph=True)
        return energy(pulled)


PENALTIES: dict[str, type[Penalty]] = {"norm": NormPenalty, "anchor": AnchorPenalty, "jacobian": JacobianPenalty}


def penalties_of(config: Penalised) -> tuple[Penalty, ...]:
    """Return the penalties of a configuration that weigh anything; `norm_penalty_coef` is one of kind `norm`.

    Raises `InputError` for an unknown kind or argument, a value out of range, or a kind that is given twice.
    """
    named: list[Named] = list(config.penalties or ())
    if config.norm_penalty_coef:
        named.insert(0, {"kind": "norm", "coefficient": config.norm_penalty_coef})
    chosen = [choose("penalties", value, PENALTIES) for value in named]
    kinds = [kind for kind, _ in chosen]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise InputError(
                f"the {kind.name} is given twice (penalties and norm_penalty_coef together): give it one coefficient."
            )
    return tuple(penalty for penalty in (kind(arguments) for kind, arguments in chosen) if penalty.coefficient)


def set_coefficient(config: Penalised, kind: str, coefficient: float) -> None:
    """Give one penalty of a configuration another coefficient, from the next step on.

    `norm` is `norm_penalty_coef` unless `penalties` has it. Raises `InputError` for another kind that is not there.
    """
    named = list(config.penalties or ())
    places = [at for at, value in enumerate(named) if kind_of(value) == kind]
    if not places and kind == "norm":
        config.norm_penalty_coef = coefficient
        return
    if not places:
        raise InputError(f"the configuration has no penalty '{kind}' to steer: name it in `penalties`.")
    value = named[places[0]]
    given = {"kind": value} if isinstance(value, str) else value
    named[places[0]] = {**given, "coefficient": coefficient}
    config.penalties = named
