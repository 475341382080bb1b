"""Carry (recurrence): what the next loop receives of a state."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import nn
from transformers import initialization as init

from loopscale.errors import InputError
from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part, Sizes, build_norm
from loopscale.stepping import Context, State


class Carry(Part):
    """(z, h, k, context) -> h. z is the state of loop k, h what that loop received."""

    reads_received: ClassVar[bool] = False  # whether it reads h
    norm_kind: ClassVar[str | None] = None  # of the norm it holds as `norm`, which a readout may share

    @abstractmethod
    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return what loop k + 1 receives. `h` is None only where `reads_received` is False."""


@final
class ResidualCarry(Carry):
    """z: the state as it is. Whatever grows in it goes on growing (arXiv 2606.24898)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return `z`."""
        return z


@final
class NormedCarry(Carry):
    """N(z): scale leaves the loop (inter-loop norm of arXiv 2606.24898; Ouro).

    How much of the mean is left after the division by the scale depends on the rest of the state.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.REMOVES, "mean": Effect.WEIGHTS}
    norm_kind: ClassVar[str | None] = "rmsnorm"

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norm = build_norm("rmsnorm", sizes)

    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return the RMS-normalised state."""
        return self.norm(z)


@final
class DampedCarry(Carry):
    """sigmoid(a) z with one learned a: growth is slowed, scale is still carried (arXiv 2606.24898).

    It starts at sigmoid(2) = 0.88: near the identity, with a gradient.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    initial_logit: ClassVar[float] = 2.0

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.logit = nn.Parameter(torch.tensor(self.initial_logit))

    def init_weights(self) -> None:
        """Set the logit."""
        init.constant_(self.logit, self.initial_logit)

    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return sigmoid(logit) * z."""
        return torch.sigmoid(self.logit) * z


@final
class GatedCarry(Carry):
    """g z + (1 - g) h with a learned g = sigmoid(a) per channel: what a loop received stays in what the next one does.

    It starts at g = sigmoid(2) = 0.88.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}
    reads_received: ClassVar[bool] = True
    initial_logit: ClassVar[float] = 2.0

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.logit = nn.Parameter(torch.full((sizes.hidden_size,), self.initial_logit))

    def init_weights(self) -> None:
        """Set the logits."""
        init.constant_(self.logit, self.initial_logit)

    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return the mixture."""
        assert h is not None  # it reads what the loop received, and whoever runs loops hands it on
        return torch.lerp(h, z, torch.sigmoid(self.logit).to(z.dtype))


@dataclass(frozen=True)
class StepSize:
    """How far a loop goes: 1 is the residual carry."""

    eta: float = 0.5

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.eta <= 1:
            raise InputError(f"eta is {self.eta}: give a number above 0 and up to 1.")


@final
class StepSizeCarry(Carry):
    """h + eta (z - h): a loop as an Euler step of size eta, without parameters."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}
    reads_received: ClassVar[bool] = True
    Arguments: ClassVar[type] = StepSize

    def forward(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return the shortened step."""
        assert h is not None  # it reads what the loop received, and whoever runs loops hands it on
        return torch.lerp(h, z, self.arguments.eta)


CARRIES: dict[str, type[Carry]] = {
    "residual": ResidualCarry,
    "rmsnorm": NormedCarry,
    "damped": DampedCarry,
    "gated": GatedCarry,
    "step_size": StepSizeCarry,
}
