"""Mechanisms that only tests know: what another one costs is what stands here, and a line in a registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from torch import nn

from loopscale import InputError, state
from loopscale.model.parts import CARRIES, INJECTIONS, READOUTS, Carry, Effect, Injection, Readout
from loopscale.objective import PENALTIES, Penalty


@final
class PowerReadout(Readout):
    """g s^alpha u: shrinks the scale that the head sees; g is learned."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.SEES, "mean": Effect.SEES}

    @dataclass(frozen=True)
    class Arguments:
        alpha: float = 0.5

        def __post_init__(self) -> None:
            if not 0 < self.alpha <= 1:
                raise InputError(f"alpha is {self.alpha}: give a number above 0 and up to 1.")

    def __init__(self, sizes: Any, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.gain = nn.Parameter(torch.empty(sizes.hidden_size))

    def init_weights(self) -> None:
        nn.init.ones_(self.gain)

    def forward(self, z: torch.Tensor, k: int, last: bool) -> torch.Tensor:
        scale = z.square().mean(-1, keepdim=True).sqrt()
        return self.gain * z * scale ** (self.arguments.alpha - 1)


@final
class MixingCarry(Carry):
    """z + (h - z) / (k + 2): reads what the loop received, and which loop it is."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    reads_loop: ClassVar[bool] = True
    reads_received: ClassVar[bool] = True

    def forward(self, z: torch.Tensor, h: Any, k: int, context: Any) -> torch.Tensor:
        return z + (h - z) / (k + 2)


@final
class HoldingCarry(Carry):
    """z + (h - z) / 4: reads what the loop received."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    reads_received: ClassVar[bool] = True

    def forward(self, z: torch.Tensor, h: Any, k: int, context: Any) -> torch.Tensor:
        return z + (h - z) / 4


@final
class AddInjection(Injection):
    """h + e."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def forward(self, h: torch.Tensor, context: Any) -> torch.Tensor:
        return h + context.injected


@final
class MeanPenalty(Penalty):
    """lambda (mean_c z_c)^2."""

    name: ClassVar[str] = "mean penalty"
    effects: ClassVar[Mapping[str, Effect]] = {"mean": Effect.SEES, "scale": Effect.SEES}

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return z.to(state.norm(z).dtype).mean(-1).square()


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register them."""
    monkeypatch.setitem(READOUTS, "power", PowerReadout)
    monkeypatch.setitem(CARRIES, "mixing", MixingCarry)
    monkeypatch.setitem(CARRIES, "holding", HoldingCarry)
    monkeypatch.setitem(INJECTIONS, "add", AddInjection)
    monkeypatch.setitem(PENALTIES, "mean", MeanPenalty)
