"""Injection: how the input enters a loop again, before its layers."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import nn
from torch.nn.functional import softplus
from transformers import initialization as init

from loopscale.errors import InputError
from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part, Sizes, build_norm
from loopscale.stepping import Context, State


class Injection(Part):
    """(h, context) -> what the layers of the loop receive. `context.injected` is e, of the shape of h."""

    reads_injected: ClassVar[bool] = True

    @abstractmethod
    def forward(self, h: State, context: Context) -> State:
        """Return the state with the input in it."""


@final
class NoInjection(Injection):
    """h: the input enters the first loop alone."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    reads_injected: ClassVar[bool] = False

    def forward(self, h: State, context: Context) -> State:
        """Return `h`."""
        return h


@dataclass(frozen=True)
class InputGain:
    """Where a learned gain per channel starts; None is no gain, the input as it is."""

    gain: float | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if self.gain is not None and not math.isfinite(self.gain):
            raise InputError(f"gain is {self.gain}: give a finite number.")


@final
class AddInjection(Injection):
    """h + e: the state goes on as it is, with the input beside it. With a gain, h + g e, g learned per channel."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    Arguments: ClassVar[type] = InputGain

    def __init__(self, sizes: Sizes, arguments: InputGain) -> None:
        super().__init__(sizes, arguments)
        self.gain = None if arguments.gain is None else nn.Parameter(torch.full((sizes.hidden_size,), arguments.gain))

    def init_weights(self) -> None:
        """Set the gains."""
        if self.gain is not None:
            init.constant_(self.gain, self.arguments.gain)

    def forward(self, h: State, context: Context) -> State:
        """Return h + e."""
        e = context.injected
        assert e is not None  # the backbone sees to it
        return h + (e if self.gain is None else self.gain.to(h.dtype) * e)


@final
class LinearInjection(Injection):
    """W [h; e] (Huginn, arXiv 2502.05171): one map of state and input, which may keep or drop either."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.mix = nn.Linear(2 * sizes.hidden_size, sizes.hidden_size, bias=False)

    def forward(self, h: State, context: Context) -> State:
        """Return the map of state and input side by side; under autocast the state keeps its precision."""
        assert context.injected is not None  # the backbone sees to it
        return self.mix(torch.cat([h, context.injected], -1)).to(h.dtype)


@dataclass(frozen=True)
class Discretisation:
    """How the continuous system h' = -A h + B e becomes one loop: `euler` weighs B e by dt, `zoh` integrates it."""

    rule: Literal["euler", "zoh"] = "euler"


@final
class DiagonalInjection(Injection):
    """exp(-dt A) h + dt B e with A > 0 and dt > 0 per channel (Parcae): every channel of the state is damped.

    The exact zero-order hold weighs B e by (1 - exp(-dt A)) / A instead of dt. A starts at 1 and dt at 0.1, B at the
    identity.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}
    Arguments: ClassVar[type] = Discretisation
    initial_step: ClassVar[float] = 0.1

    def __init__(self, sizes: Sizes, arguments: Discretisation) -> None:
        super().__init__(sizes, arguments)
        self.log_decay = nn.Parameter(torch.zeros(sizes.hidden_size))
        self.raw_step = nn.Parameter(torch.zeros(sizes.hidden_size))
        self.input = nn.Linear(sizes.hidden_size, sizes.hidden_size, bias=False)

    def init_weights(self) -> None:
        """Set A, dt and B."""
        init.zeros_(self.log_decay)
        init.constant_(self.raw_step, float(torch.tensor(self.initial_step).expm1().log()))  # softplus of it is dt
        init.eye_(self.input.weight)

    def forward(self, h: State, context: Context) -> State:
        """Return the damped state with the input."""
        a, dt = self.log_decay.exp(), softplus(self.raw_step)
        kept = torch.exp(-dt * a)
        gain = dt if self.arguments.rule == "euler" else (1 - kept) / a
        return kept.to(h.dtype) * h + gain.to(h.dtype) * self.input(context.injected)


@final
class OrthogonalInjection(Injection):
    """(h - proj_e h) + e: along the input's own direction the state is set anew, across it it goes on."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.WEIGHTS, "mean": Effect.WEIGHTS}

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.eps = sizes.rms_norm_eps

    def forward(self, h: State, context: Context) -> State:
        """Return the state with its part along e replaced by e."""
        assert context.injected is not None  # the backbone sees to it
        e = context.injected
        along = (h * e).mean(-1, keepdim=True) / (e.square().mean(-1, keepdim=True) + self.eps)
        return h + (1 - along) * e


@final
class RestartInjection(Injection):
    """e + g N(h) with a learned gain g per channel: every loop restarts from the input and gets a message of the state.

    The message is normalised, so that scale leaves the loop. g starts at 0.1.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.REMOVES, "mean": Effect.WEIGHTS}
    initial_gain: ClassVar[float] = 0.1

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norm = build_norm("rmsnorm", sizes)
        self.gain = nn.Parameter(torch.full((sizes.hidden_size,), self.initial_gain))

    def init_weights(self) -> None:
        """Set the gains."""
        init.constant_(self.gain, self.initial_gain)

    def forward(self, h: State, context: Context) -> State:
        """Return the input with the message."""
        assert context.injected is not None  # the backbone sees to it
        return context.injected + self.gain.to(h.dtype) * self.norm(h)


INJECTIONS: dict[str, type[Injection]] = {
    "none": NoInjection,
    "add": AddInjection,
    "linear": LinearInjection,
    "diagonal": DiagonalInjection,
    "orthogonal": OrthogonalInjection,
    "restart": RestartInjection,
}
