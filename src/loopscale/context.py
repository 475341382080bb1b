"""Context of a call: what its loops share besides the state, and the shapes that the verbs speak of.

Shape letters in this library: B batch, T tokens, D hidden, N heads, H head size, V vocabulary, K loops.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from loopscale.errors import InputError
from loopscale.hf import AttentionMask

State = Float[Tensor, "batch seq hidden"]
Logits = Float[Tensor, "batch seq vocab"]
Tokens = Int[Tensor, "batch seq"]
Positions = Int[Tensor, "#batch seq"]
Injected = Float[Tensor, "batch seq width"]  # the prelude may be narrower or wider than the state


@runtime_checkable
class Recording(Protocol):
    """What collects the states between layers, where a caller asks for them."""

    def begin(self, h: State) -> None:
        """Keep what the first layer receives."""
        ...

    def add(self, h: State, attention: Tensor | None) -> None:
        """Keep what a layer made, and where its attention looked if that is known."""
        ...


@runtime_checkable
class Layout(Protocol):
    """Which slots of a cache the layers before a readout have."""

    def at_exit(self, k: int, i: int) -> int:
        """Return the slot of layer i before the readout of exit k."""
        ...


@dataclass(frozen=True)
class Context:
    """What the loops of one call share, besides the state: made once, handed to every verb, changed by none.

    `tokens` are those of the call, `injected` is e, what the prelude made of them, where something reads it again;
    `attention_mask` is in the form the attention implementation wants (None: plain causal), `rotary` the cosines and
    sines of RoPE, `cache` a transformers cache with one slot per (loop, layer), `layout` where in it the coda's
    are, `recorder` what collects hidden states.
    """

    tokens: Tokens | None = None
    injected: Injected | None = None
    attention_mask: AttentionMask = None
    positions: Positions | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    cache: Cache | None = None
    layout: Layout | None = None
    recorder: Recording | None = None

    def to(self, device: torch.device | int | str, non_blocking: bool = False) -> "Context":
        """Return the same on another device: accelerate calls it before a layer that lies there."""
        ours = {f.name: _moved(getattr(self, f.name), device, non_blocking) for f in fields(self)}
        return replace(self, **ours)

    def rows(self, index: Tensor) -> "Context":
        """Return the context of some rows of the batch, by indices or a mask; nothing is run again.

        Raises `InputError` where a cache keeps its own rows, or for a mask that cannot be taken apart.
        """
        if self.cache is not None or not isinstance(self.attention_mask, Tensor | None):
            raise InputError("rows cannot leave a call with a cache or a block mask: run it without a cache, in sdpa.")

        return replace(
            self,
            tokens=None if self.tokens is None else self.tokens[index],
            injected=None if self.injected is None else self.injected[index],
            attention_mask=None if self.attention_mask is None else _some(self.attention_mask, index),
            positions=None if self.positions is None else _some(self.positions, index),
            rotary=None if self.rotary is None else (_some(self.rotary[0], index), _some(self.rotary[1], index)),
        )


def _moved(x: Any, device: torch.device | int | str, non_blocking: bool) -> Any:
    """Return tensors on a device, and anything else as it is."""
    if isinstance(x, tuple):
        return tuple(_moved(one, device, non_blocking) for one in x)
    return x.to(device, non_blocking=non_blocking) if isinstance(x, Tensor) else x


def _some(x: Tensor, index: Tensor) -> Tensor:
    """Return some rows of what may serve all rows with one."""
    return x if len(x) == 1 else x[index]
