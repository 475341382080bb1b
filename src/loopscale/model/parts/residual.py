"""Residual: how a branch (attention or feed-forward) of a layer joins the stream.

The norms around a branch belong to the part. The layer registers them under the names that they have in checkpoints;
what else a part holds is registered under the part's own name.
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
from loopscale.model.parts.part import LayerSizes, Part, build_norm
from loopscale.stepping import State

Branch = Callable[[Tensor], Tensor]


class Residual(Part):
    """(x, branch) -> x. One per branch of every layer.

    `norms` are the modules before and after the branch (a part may leave one an identity, or put it elsewhere).
    """

    norms: tuple[nn.Module, nn.Module]  # in a tuple, so that the layer registers them and not this module
    initial_gain: float = 1.0  # by which the matrices that a branch writes through are initialised smaller

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.dropout = nn.Dropout(sizes.dropout)

    @abstractmethod
    def forward(self, x: State, branch: Branch) -> State:
        """Return the stream after the branch."""

    def dropped(self, y: Tensor) -> Tensor:
        """Return what dropout leaves of a branch: all of it outside training, where the call alone costs."""
        return self.dropout(y) if self.dropout.training else y


@final
class PreNorm(Residual):
    """x + F(N x)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), nn.Identity()

    def forward(self, x: State, branch: Branch) -> State:
        """Add the branch of the normalised stream."""
        return x + self.dropped(branch(self.norms[0](x)))


@final
class Sandwich(Residual):
    """x + N2 F(N1 x): every branch writes with the scale of N2's weight (Ouro, arXiv 2510.25741)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), build_norm(sizes.block_norm, sizes)

    def forward(self, x: State, branch: Branch) -> State:
        """Add the normalised branch of the normalised stream."""
        before, after = self.norms
        return x + self.dropped(after(branch(before(x))))


@final
class Post(Residual):
    """x + N F(x): a branch reads the stream as it is, and writes with the scale of N's weight.

    OLMo 2 (arXiv 2501.00656).
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = nn.Identity(), build_norm(sizes.block_norm, sizes)

    def forward(self, x: State, branch: Branch) -> State:
        """Add the normalised branch."""
        return x + self.dropped(self.norms[1](branch(x).to(x.dtype)))


@final
class PostAdd(Residual):
    """N2(x + F(N1 x)): the whole stream is normalised after every branch, so that scale leaves the loop.

    Huginn's blocks (arXiv 2502.05171).
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.REMOVES, "mean": Effect.WEIGHTS}

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), build_norm(sizes.block_norm, sizes)

    def forward(self, x: State, branch: Branch) -> State:
        """Normalise the sum."""
        before, after = self.norms
        return after(x + self.dropped(branch(before(x))))


@dataclass(frozen=True)
class Gain:
    """What a branch starts at."""

    initial: float = 0.1

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.initial <= 1:
            raise InputError(f"initial is {self.initial}: give a number from 0 to 1.")


@final
class LayerScale(Residual):
    """x + g F(N x) with a learned gain g per channel that starts small (CaiT, arXiv 2103.17239)."""

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    Arguments: ClassVar[type] = Gain

    def __init__(self, sizes: LayerSizes, arguments: Gain) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), nn.Identity()
        self.gain = nn.Parameter(torch.full((sizes.hidden_size,), arguments.initial))

    def init_weights(self) -> None:
        """Set the gains."""
        init.constant_(self.gain, self.arguments.initial)

    def forward(self, x: State, branch: Branch) -> State:
        """Add the branch with its gain."""
        return x + self.gain.to(x.dtype) * self.dropped(branch(self.norms[0](x)))


@dataclass(frozen=True)
class Share:
    """lambda: what all branches of a call add up to, where they agree."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.weight < float("inf"):
            raise InputError(f"weight is {self.weight}: give a number above 0.")


@final
class Scaled(Residual):
    """x + lambda / (n sqrt(R)) F(N x), for R layers that run n times each: growth does not go with the number of loops.

    n is the trained loops in the stack, and 1 in layers that run once.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.KEEPS, "mean": Effect.KEEPS}
    Arguments: ClassVar[type] = Share

    def __init__(self, sizes: LayerSizes, arguments: Share) -> None:
        super().__init__(sizes, arguments)
        self.norms = build_norm(sizes.block_norm, sizes), nn.Identity()
        self.share = arguments.weight / (sizes.visits * sizes.layers**0.5)

    def forward(self, x: State, branch: Branch) -> State:
        """Add the branch's share."""
        return x + self.share * self.dropped(branch(self.norms[0](x)))


@final
class DeepNorm(Residual):
    """N(a x + F(x)) with a = (2 n)^(1/2) and branches initialised (8 n)^(-1/2) times smaller; n is the unrolled depth.

    Layers that run once count in it. DeepNet (arXiv 2203.00555) has fourth roots; layers that are applied again and
    again add up in step, hence square roots here.
    """

    effects: ClassVar[Mapping[str, Effect]] = {"scale": Effect.REMOVES, "mean": Effect.WEIGHTS}

    def __init__(self, sizes: LayerSizes, arguments: Any) -> None:
        super().__init__(sizes, arguments)
        self.norms = nn.Identity(), build_norm(sizes.block_norm, sizes)
        self.stream_gain = (2 * sizes.depth) ** 0.5
        self.initial_gain = (8 * sizes.depth) ** -0.5

    def forward(self, x: State, branch: Branch) -> State:
        """Normalise the weighted sum."""
        return self.norms[1](self.stream_gain * x + self.dropped(branch(x)))


RESIDUALS: dict[str, type[Residual]] = {
    "pre": PreNorm,
    "sandwich": Sandwich,
    "post": Post,
    "post_add": PostAdd,
    "layer_scale": LayerScale,
    "scaled": Scaled,
    "deepnorm": DeepNorm,
}
