"""Padding: which tokens of a forward are real, as its callers say it by one of the usual arguments.

A watched state leaves the others out, so that its figures are those of text.
"""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

#: names of masks of (batch, seq), and whether their entries mark what is real (transformers) or what is padding (torch)
MASKS = {"attention_mask": True, "src_key_padding_mask": False, "key_padding_mask": False}


def places_of(module: nn.Module) -> Mapping[str, int]:
    """Return where each mask stands among the positional arguments of a module's forward."""
    try:
        names = list(signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # a forward that Python cannot describe
        return {}
    plain = [each.name for each in names if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    return {name: plain.index(name) for name in MASKS if name in plain}


def real_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any], places: Mapping[str, int]) -> Tensor | None:
    """Return a mask (batch, seq) that is not zero where a token is real; None where the call carries none."""
    for name, real in MASKS.items():
        mask = kwargs.get(name)
        if mask is None and places.get(name, len(args)) < len(args):
            mask = args[places[name]]
        if isinstance(mask, Tensor) and mask.ndim == 2:
            return mask if real else mask == 0  # of numbers, -inf marks padding
    return None


def along(mask: Tensor, tokens: tuple[int, ...]) -> Tensor | None:
    """Return a mask (batch, seq) laid out as the tokens of a state, which may stand (seq, batch) or all in a row."""
    if mask.shape == tokens or tokens == (mask.numel(),):
        return mask.reshape(-1)
    return mask.T.reshape(-1) if mask.shape[::-1] == tokens else None
