"""Padding of live models: rows that are padded on their left are run as if they began with their first token.

Code made elsewhere takes masks of its own kind or ignores them. To a causal model a shifted row is what a mask and
positions from the first token on are, and padding behind a row's tokens is where nobody looks.
"""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from loopscale.errors import InputError
from loopscale.stepping import Tokens

Real = Bool[Tensor, "batch seq"]
PerToken = Shaped[Tensor, "batch seq ..."]


def padding_mask(tokens: Tokens, attention_mask: Tensor | None, family: str) -> Real | None:
    """Return which tokens are real where a row is padded on its left; None where the rows need no shift.

    Raises `InputError` for a mask of another shape, or with holes.
    """
    if attention_mask is None:
        return None
    if attention_mask.shape != tokens.shape:
        raise InputError(
            f"the attention_mask {tuple(attention_mask.shape)} is not one of tokens {tuple(tokens.shape)}: give "
            f"{family} 1 for every token and 0 for padding, as a tokenizer does."
        )
    real = attention_mask.bool()
    if bool((real[:, 1:] & ~real[:, :-1]).sum(1).gt(1 - real[:, 0].long()).any()):
        raise InputError(
            f"the attention_mask has holes, and {family} runs each row's tokens as one text: padding stands at the "
            "ends of a row, mend the mask."
        )
    return real if bool((~real[:, 0]).any()) else None


def to_front(x: PerToken, real: Real | None) -> PerToken:
    """Return rows shifted so that they begin with their first real token; what stood before comes last."""
    return x if real is None else _rolled(x, _first(real))


def from_front(x: PerToken, real: Real | None) -> PerToken:
    """Undo `to_front`."""
    return x if real is None else _rolled(x, -_first(real))


def _first(real: Real) -> Int[Tensor, " batch"]:
    """Return where the first real token of every row is."""
    return real.int().argmax(1)


def _rolled(x: PerToken, by: Int[Tensor, " batch"]) -> PerToken:
    T = x.shape[1]
    index = (torch.arange(T, device=x.device) + by[:, None]) % T
    return x[torch.arange(len(x), device=x.device)[:, None], index]
