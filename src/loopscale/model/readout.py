"""What the LM head sees of a state. Each class says which coordinates it hides; the static audit reads that."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import nn

from loopscale.model.blocks import build_norm
from loopscale.model.config import LoopedConfig
from loopscale.stepping import State


class RawReadout(nn.Module):
    """The head sees the state itself: every coordinate it does not map to zero."""

    alike: ClassVar[bool] = True  # every exit is read in the same way

    def forward(self, z: State, last: bool) -> State:
        """Return `z`."""
        return z

    def hides(self, last: bool) -> frozenset[str]:
        """Return the coordinates that the logits cannot depend on."""
        return frozenset()


class NormReadout(nn.Module):
    """The head sees a normalised state: scale is hidden, and behind LayerNorm the mean as well."""

    alike: ClassVar[bool] = True

    def __init__(self, norm: nn.Module, hidden_coordinates: frozenset[str]) -> None:
        super().__init__()
        self.norm = norm
        self.hidden_coordinates = hidden_coordinates

    def forward(self, z: State, last: bool) -> State:
        """Return norm(z)."""
        return self.norm(z)

    def hides(self, last: bool) -> frozenset[str]:
        """Return the coordinates that the logits cannot depend on."""
        return self.hidden_coordinates


class FinalNormReadout(NormReadout):
    """Raw at loops 1..K-1, normalised at the last: the intermediate exits keep scale visible."""

    alike = False

    def forward(self, z: State, last: bool) -> State:
        """Return norm(z) at the final exit and `z` before."""
        return self.norm(z) if last else z

    def hides(self, last: bool) -> frozenset[str]:
        """Return the coordinates that the logits of this exit cannot depend on."""
        return self.hidden_coordinates if last else frozenset()


READOUTS: Mapping[str, Callable[[LoopedConfig], RawReadout | NormReadout]] = {
    "raw": lambda config: RawReadout(),
    "rmsnorm": lambda config: NormReadout(build_norm("rmsnorm", config), frozenset({"scale"})),
    "layernorm": lambda config: NormReadout(build_norm("layernorm", config), frozenset({"scale", "mean"})),
    "final_rmsnorm": lambda config: FinalNormReadout(build_norm("rmsnorm", config), frozenset({"scale"})),
}
