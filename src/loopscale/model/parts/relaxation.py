"""Relaxation: how far a loop goes from what it received to what its layers make of it.

The state of a loop is what comes out, so that readouts see it, unlike what a carry does between loops.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from transformers import initialization as init

from loopscale.errors import InputError
from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part, Sizes, noise_at, position_noise
from loopscale.stepping import Context, State

Stack = Callable[[Tensor], Tensor]  # S: injection and layers
SEED = 0  # of the draws that a blind loop works on


class Relaxation(Part):
    """(h, stack, k, context) -> z. h is what loop k received."""

    @abstractmethod
    def forward(self, h: State, stack: Stack, k: int, context: Context) -> State:
        """Return the state of loop k."""


@final
class FullStep(Relaxation):
    """S(h): what the layers make of it."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def forward(self, h: State, stack: Stack, k: int, context: Context) -> State:
        """Return S(h)."""
        return stack(h)


@dataclass(frozen=True)
class Factor:
    """How far a loop goes: 1 is all the way; 1 / K makes K loops go as far as one, in smaller steps."""

    factor: float = 0.25

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.factor <= 1:
            raise InputError(f"factor is {self.factor}: give a number above 0 and up to 1.")


@final
class FixedRelaxation(Relaxation):
    """h + w (S(h) - h): damped loops, for pretrained layers without training (arXiv 2605.23872, w = 1 / K)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    Arguments: ClassVar[type] = Factor

    def forward(self, h: State, stack: Stack, k: int, context: Context) -> State:
        """Return the damped state."""
        return torch.lerp(h, stack(h), self.arguments.factor)


@dataclass(frozen=True)
class Mixing:
    """Where the scalar starts, and how many times faster than other weights it learns (an optimizer moves a / rate)."""

    initial: float = 0.0
    rate: float = 30.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not -1 <= self.initial <= 1:
            raise InputError(f"initial is {self.initial}: give a number from -1 to 1.")
        if not 0 < self.rate < float("inf"):
            raise InputError(f"rate is {self.rate}: give a number above 0.")


class _Mixed(Relaxation):
    """One learned scalar a, kept as a / rate."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    reads_loop: ClassVar[bool] = True
    Arguments: ClassVar[type] = Mixing

    def __init__(self, sizes: Sizes, arguments: Mixing) -> None:
        super().__init__(sizes, arguments)
        self.mixing = nn.Parameter(torch.tensor(arguments.initial / arguments.rate))

    def init_weights(self) -> None:
        """Set the scalar."""
        init.constant_(self.mixing, self.arguments.initial / self.arguments.rate)

    def mixed(self, h: State, z: State) -> State:
        """Return h + a (z - h)."""
        return torch.lerp(h, z, (self.arguments.rate * self.mixing).to(h.dtype))


@final
class LearnedRelaxation(_Mixed):
    """S(h) in the first loop, then h + a (S(h) - h) with one learned a (arXiv 2610.00673).

    a starts at 0: every exit is the first one, and whatever a later exit gains is owed to looping.
    """

    def forward(self, h: State, stack: Stack, k: int, context: Context) -> State:
        """Return the mixture."""
        z = stack(h)
        return z if k == 0 else self.mixed(h, z)


@final
class BlindRelaxation(_Mixed):
    """S(h) in the first loop, then h + a (S(n) - h): the same loops, on noise n instead of h.

    The control of `learned`: the compute and the weights are the same, and what the later loops compute cannot depend
    on the text, unless an injection brings it in. n is N(0, 1), one draw per position from a fixed seed.
    """

    draws: Tensor

    def __init__(self, sizes: Any, arguments: Mixing) -> None:
        super().__init__(sizes, arguments)
        self.config = sizes
        self.seed = SEED + (sizes.initial_state == "noise")  # other draws than those that the loops start from
        self.register_buffer("draws", position_noise(sizes, self.seed), persistent=False)

    def init_weights(self) -> None:
        """Set the scalar, and draw where a model is loaded without its buffers."""
        super().init_weights()
        init.copy_(self.draws, position_noise(self.config, self.seed))

    def forward(self, h: State, stack: Stack, k: int, context: Context) -> State:
        """Return the mixture."""
        if k == 0:
            return stack(h)
        assert context.positions is not None  # the backbone sees to it
        return self.mixed(h, stack(noise_at(self.draws, context.positions, h)))


RELAXATIONS: dict[str, type[Relaxation]] = {
    "full": FullStep,
    "fixed": FixedRelaxation,
    "learned": LearnedRelaxation,
    "blind": BlindRelaxation,
}
