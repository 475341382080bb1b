"""Start of a part that a retrofit adds: the values at which one loop computes what the original computed.

A retrofit must be the original at one loop, or whatever healing gains over it is owed to the surgery.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from loopscale.mechanism import Named, kind_of
from loopscale.model import LoopedConfig
from loopscale.model.parts import SLOTS, build_part

# the slots whose parts hold weights of their own, and where those stand in a model's state dict
PLACES: Mapping[str, str] = {slot: f"model.{slot}." for slot in ("injection", "relaxation", "recurrence")}


def _keep_the_state(part: nn.Module) -> None:
    """W = [I 0]: the state as it is, nothing of the input."""
    weight: Any = part.get_submodule("mix").weight
    weight.zero_().fill_diagonal_(1)


def _no_message(part: nn.Module) -> None:
    """A gain of zero: every loop is the first one again, until training opens the gate."""
    part.get_parameter("gain").zero_()


# a part's name -> what is set on it, where its own start is another
STARTS: Mapping[tuple[str, str], Callable[[nn.Module], None]] = {
    ("injection", "linear"): _keep_the_state,
    ("injection", "restart"): _no_message,
}


@torch.no_grad()
def started_parts(config: LoopedConfig) -> dict[str, Shaped[Tensor, "..."]]:
    """Return the weights of the loop's own parts, under the names of a state dict, at their start in a retrofit."""
    state: dict[str, Tensor] = {}
    for slot, place in PLACES.items():
        value: Named = getattr(config, slot)
        part = build_part(slot, value, SLOTS[slot], config)
        part.init_weights()
        if (start := STARTS.get((slot, kind_of(value)))) is not None:
            start(part)
        state |= {place + name: weight.detach().clone() for name, weight in part.state_dict().items()}
    return state
