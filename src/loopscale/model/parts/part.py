"""Part of the loop: what fills a slot of the model. A new one is one class and one line in its slot's registry.

Parts run inside the compiled layer and inside every loop: their `forward` is plain tensor code without a sync.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import initialization as init

from loopscale.mechanism import Mechanism, Named, choose
from loopscale.stepping import State


@runtime_checkable
class Sizes(Protocol):
    """What a part may read of the model's configuration."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def block_norm(self) -> str: ...  # noqa: D102
    @property
    def rms_norm_eps(self) -> float: ...  # noqa: D102
    @property
    def dropout(self) -> float: ...  # noqa: D102


@final
@dataclass(frozen=True)
class LayerSizes:
    """The same of a layer, and where it stands: what is added up along a call depends on it.

    `layers` of its kind run `visits` times each in a call of the trained loops, which visits `depth` layers in all.
    """

    hidden_size: int
    block_norm: str
    rms_norm_eps: float
    dropout: float
    layers: int
    visits: int
    depth: int


class Part(Mechanism, nn.Module, ABC):
    """A small module in one slot, with the slot's whole signature. Every concrete part is final."""

    def __init__(self, sizes: Any, arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments

    def init_weights(self) -> None:
        """Set the parameters that the part itself holds; those of its children are the model's business."""


@final
class IdentityLinear(nn.Linear):
    """A square map without bias that starts at the identity.

    A class of its own: transformers sets no weights of a module that holds others alone.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, size, bias=False)

    def init_weights(self) -> None:
        """Set the weight."""
        init.eye_(self.weight)


def position_noise(config: Any, seed: int) -> Float[Tensor, "positions hidden"]:
    """Return N(0, 1), one draw per position from a fixed seed: results repeat, cached or not.

    On device meta, where only sizes are asked, nothing is drawn.
    """
    shape = config.max_position_embeddings, config.hidden_size
    if torch.get_default_device().type == "meta":
        return torch.empty(shape)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def noise_at(draws: Float[Tensor, "positions hidden"], positions: Tensor, like: State) -> State:
    """Return the draws of the positions, in the shape and precision of a state; past the last they begin anew."""
    return draws[positions % len(draws)].to(like.dtype).expand_as(like)


P = TypeVar("P", bound=Part)


def build_part(field: str, value: Named, registry: Mapping[str, type[P]], sizes: Sizes) -> P:
    """Return the part that a field of the configuration names. Raises `InputError` as `choose` does."""
    part, arguments = choose(field, value, registry)
    return part(sizes, arguments)


def build_norm(kind: str, sizes: Sizes) -> nn.Module:
    """Return an RMSNorm or a LayerNorm over the hidden size."""
    return {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}[kind](sizes.hidden_size, eps=sizes.rms_norm_eps)
