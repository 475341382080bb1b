"""Part of the loop: what fills a slot of the model. A new one is one class and one line in its slot's registry.

Parts run inside the compiled layer and inside every loop: their `forward` is plain tensor code without a sync.
"""

from abc import ABC
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

from loopscale.mechanism import Mechanism, Named, choose


@runtime_checkable
class Sizes(Protocol):
    """What a part may read of the model's configuration."""

    hidden_size: int
    num_stack_layers: int
    trained_loops: int
    block_norm: str
    rms_norm_eps: float
    dropout: float


class Part(Mechanism, nn.Module, ABC):
    """A small module in one slot, with the slot's whole signature. Every concrete part is final."""

    def __init__(self, sizes: Any, arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments

    def init_weights(self) -> None:
        """Set the parameters that the part itself holds; those of its children are the model's business."""


P = TypeVar("P", bound=Part)


def build_part(field: str, value: Named, registry: Mapping[str, type[P]], sizes: Sizes) -> P:
    """Return the part that a field of the configuration names. Raises `InputError` as `choose` does."""
    part, arguments = choose(field, value, registry)
    return part(sizes, arguments)


def build_norm(kind: str, sizes: Sizes) -> nn.Module:
    """Return an RMSNorm or a LayerNorm over the hidden size."""
    return {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}[kind](sizes.hidden_size, eps=sizes.rms_norm_eps)
