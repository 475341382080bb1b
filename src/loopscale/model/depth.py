"""The depth of one call: how many loops, and a cache that fits them."""

from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from loopscale.errors import InputError
from loopscale.model.config import LoopedConfig


def at_depth(config: LoopedConfig, num_loops: int) -> LoopedConfig:
    """Return the configuration with another number of loops, for whoever sizes a cache by it."""
    config = copy(config)
    config.num_loops = num_loops
    return config


def check_loops(num_loops: Any) -> None:
    """Raise `InputError` unless `num_loops` is a whole number of loops."""
    if not isinstance(num_loops, int) or num_loops < 1:
        raise InputError(f"num_loops is {num_loops!r}: give a whole number of loops, at least 1.")


def check_depth(cache: Cache, deepest: int) -> None:
    """Raise `InputError` for a cache without a `deepest` slot, or where that has seen other tokens than the first.

    Its logits would be silently wrong. Static caches count in tensors: left alone on an accelerator (a sync) and
    under torch.compile.
    """
    if not isinstance(cache, DynamicCache) and len(cache.layers) <= deepest:  # a dynamic one may grow slots
        raise InputError(
            f"this cache has {len(cache.layers)} slots, one per layer and loop, too few for this call: make "
            "one for its loops."
        )
    seen, seen_deepest = cache.get_seq_length(0), cache.get_seq_length(deepest)
    costly = isinstance(seen, Tensor) and (seen.device.type != "cpu" or torch.compiler.is_compiling())
    if not costly and seen != seen_deepest:
        raise InputError(
            f"this cache holds {int(seen)} tokens at the first loop and {int(seen_deepest)} at the deepest of this "
            "call: use the same num_loops in every call on one cache."
        )
