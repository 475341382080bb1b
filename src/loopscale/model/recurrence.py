"""What the next loop receives: the state as it is, normalised, or damped.

Each class says which coordinates of the state it takes out of the loop; the static audit reads that.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import nn

from loopscale.model.blocks import build_norm
from loopscale.model.config import LoopedConfig
from loopscale.stepping import State


class Residual(nn.Module):
    """Carry the state as it is: whatever grows in it goes on growing."""

    removes: ClassVar[frozenset[str]] = frozenset()

    def forward(self, z: State) -> State:
        """Return `z`."""
        return z


class InterLoopNorm(nn.Module):
    """Normalise between loops: scale leaves the loop (arXiv 2606.24898, inter-loop norm; Ouro)."""

    removes: ClassVar[frozenset[str]] = frozenset({"scale"})

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, z: State) -> State:
        """Return the RMS-normalised state."""
        return self.norm(z)


class Damped(nn.Module):
    """Multiply by one learned factor in (0, 1): growth is slowed, scale is still carried."""

    removes: ClassVar[frozenset[str]] = frozenset()
    initial_logit: ClassVar[float] = 2.0  # sigmoid(2) = 0.88: near the identity, with a gradient

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(self.initial_logit))

    def forward(self, z: State) -> State:
        """Return sigmoid(logit) * z."""
        return torch.sigmoid(self.logit) * z


RECURRENCES: Mapping[str, Callable[[LoopedConfig], Residual | InterLoopNorm | Damped]] = {
    "residual": lambda config: Residual(),
    "rmsnorm": lambda config: InterLoopNorm(build_norm("rmsnorm", config)),
    "damped": lambda config: Damped(),
}
