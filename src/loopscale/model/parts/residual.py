"""Residual: how a branch (attention or feed-forward) of a layer joins the stream.

The norms around a branch belong to the part. The layer registers them under the names that they have in checkpoints;
what else a part holds is registered under the part's own name.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

from torch import Tensor, nn

from loopscale.mechanism import Effect
from loopscale.model.parts.part import Part, Sizes, build_norm
from loopscale.stepping import State

Branch = Callable[[Tensor], Tensor]


class Residual(Part):
    """(x, branch) -> x. One per branch of every layer.

    `norms` are the modules before and after the branch (a part may leave one an identity, or put it elsewhere).
    """

    norms: tuple[nn.Module, nn.Module]  # in a tuple, so that the layer registers them and not this module

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.dropout = nn.Dropout(sizes.dropout)

    @abstractmethod
    def forward(self, x: State, branch: Branch) -> State:
        """Return the stream after the branch."""


@final
class PreNorm(Residual):
    """x + F(N x)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), nn.Identity()

    def forward(self, x: State, branch: Branch) -> State:
        """Add the branch of the normalised stream."""
        return x + self.dropout(branch(self.norms[0](x)))


@final
class Sandwich(Residual):
    """x + N2 F(N1 x): every branch writes with the scale of N2's weight (Ouro, arXiv 2510.25741)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def __init__(self, sizes: Sizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), build_norm(sizes.block_norm, sizes)

    def forward(self, x: State, branch: Branch) -> State:
        """Add the normalised branch of the normalised stream."""
        before, after = self.norms
        return x + self.dropout(after(branch(before(x))))


RESIDUALS: dict[str, type[Residual]] = {"pre": PreNorm, "sandwich": Sandwich}
