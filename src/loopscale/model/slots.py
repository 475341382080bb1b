"""Slots of the key-value cache: which one a layer reads and writes, written once for everything that sizes a cache.

Layers that run once before the loops come first, then every visit of the stack, loop by loop, then the layers that run
before a readout, once more for every exit that is read: P + K R + E C slots.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from loopscale.errors import InputError


@dataclass(frozen=True)
class Slots:
    """The layout of one call: `prelude`, `core` and `coda` count layers, `loops` and `exits` how often they run."""

    core: int
    loops: int
    prelude: int = 0
    coda: int = 0
    exits: int = 1

    @property
    def total(self) -> int:
        """How many slots there are: the virtual depth."""
        return self.at_exit(self.exits, 0)

    def before(self, i: int) -> int:
        """Return the slot of layer i before the loops."""
        return i

    def at(self, k: int, i: int) -> int:
        """Return the slot of layer i of the stack in loop k."""
        return self.prelude + k * self.core + i

    def at_exit(self, e: int, i: int) -> int:
        """Return the slot of layer i before the readout of the e-th exit that is read."""
        return self.at(self.loops, 0) + e * self.coda + i

    def loops_in(self, total: int) -> int:
        """Return the loops that this many slots are for. Raises `InputError` where they are for no number of loops."""
        once = replace(self, loops=0).total
        loops, left = divmod(total - once, self.core)
        if loops < 1 or left:
            more = f" beside {once} that run once" if once else ""
            raise InputError(f"num_hidden_layers is {total}: give a multiple of the stack's {self.core} layers{more}.")
        return loops


def check_loops(num_loops: Any, name: str = "num_loops") -> None:
    """Raise `InputError` unless `num_loops`, given under that name, is a whole number of loops."""
    if not isinstance(num_loops, int) or num_loops < 1:
        raise InputError(f"{name} is {num_loops!r}: give a whole number of loops, at least 1.")


def check_depth(cache: Cache, slots: Slots) -> None:
    """Raise `InputError` for a cache without the deepest slot of a call, or with other tokens there than in the first.

    Its logits would be silently wrong. Static caches count in tensors: left alone on an accelerator (a sync) and
    under torch.compile.
    """
    deepest = slots.at(slots.loops - 1, 0)
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
