"""Slots of the key-value cache: which one a layer reads and writes, written once for everything that sizes a cache.

Layers that run once before the loops come first, then every visit of the stack, loop by loop, then the layers that run
before a readout, for every exit that is kept, in the order in which `exits` names them: P + K R + E C slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from loopscale.errors import InputError

FILLED_BY = "loops_of_its_calls"  # what is noted on a cache that grows


@dataclass(frozen=True)
class Slots:
    """The layout of one call: `prelude`, `core` and `coda` count layers, `loops` how often the core runs.

    `exits` are those, from 0, whose coda has slots: a call's last one, unless it is told of others.
    """

    core: int
    loops: int
    prelude: int = 0
    coda: int = 0
    exits: tuple[int, ...] | None = None

    @property
    def total(self) -> int:
        """How many slots there are: the virtual depth."""
        return self.at(self.loops, 0) + len(self.kept_exits) * self.coda

    @property
    def kept_exits(self) -> tuple[int, ...]:
        """The exits whose coda has slots, in their order."""
        return (self.loops - 1,) if self.exits is None else self.exits

    @property
    def every_exit(self) -> "Slots":
        """The same layout with slots for every exit, the deepest first: a call's last exit keeps its place."""
        return replace(self, exits=tuple(range(self.loops))[::-1])

    def before(self, i: int) -> int:
        """Return the slot of layer i before the loops."""
        return i

    def at(self, k: int, i: int) -> int:
        """Return the slot of layer i of the stack in loop k."""
        return self.prelude + k * self.core + i

    def at_exit(self, k: int, i: int) -> int:
        """Return the slot of layer i before the readout of exit k. Raises `InputError` where that exit has none."""
        if k not in self.kept_exits:
            kept = ", ".join(str(exit_ + 1) for exit_ in sorted(self.kept_exits))
            raise InputError(f"the coda of exit {k + 1} has no slots in this call's cache, which is for exits {kept}.")
        return self.at(self.loops, 0) + self.kept_exits.index(k) * self.coda + i

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


def check_depth(cache: Cache, slots: Slots, read: Sequence[int] = ()) -> None:
    """Raise `InputError` for a cache without a slot that a call needs, or with other tokens there than in the first.

    Its logits would be silently wrong. `read` are the exits that the call reads. Static caches count in tensors: left
    alone on an accelerator (a sync) and under torch.compile.
    """
    if not isinstance(cache, Cache):
        raise InputError(
            f"a {type(cache).__name__} (continuous batching) has no place for one slot per layer and loop: serve "
            "without --continuous-batching, or use `generate`, which takes padded batches."
        )
    deepest = slots.at(slots.loops - 1, 0)
    grows = isinstance(cache, DynamicCache) and cache.layer_class_to_replicate is not None
    if not isinstance(cache, DynamicCache) and len(cache.layers) <= deepest:
        raise _too_few(cache)
    seen, seen_deepest = cache.get_seq_length(0), cache.get_seq_length(deepest)
    costly = isinstance(seen, Tensor) and (seen.device.type != "cpu" or torch.compiler.is_compiling())
    if not costly and seen != seen_deepest:
        raise InputError(
            f"this cache holds {int(seen)} tokens at the first loop and {int(seen_deepest)} at the deepest of this "
            "call: use the same num_loops in every call on one cache."
        )
    if not grows and len(cache.layers) <= deepest:
        raise _too_few(cache)
    if not slots.coda:
        return
    # the coda's slots lie behind the loops: with other loops they are elsewhere, where something else may stand
    if grows:
        filled_by = slots.loops if seen == 0 else getattr(cache, FILLED_BY, slots.loops)
        fits = filled_by == slots.loops
        if fits:  # a call that is refused leaves the cache as it was
            setattr(cache, FILLED_BY, slots.loops)
    else:
        fits = len(cache.layers) == replace(slots, exits=None).total
    if not fits:
        raise InputError(
            f"this cache is for calls of another number of loops than {slots.loops}, and the coda's slots lie behind "
            "them: use the same num_loops in every call on one cache."
        )
    for k in read:
        own = slots.at_exit(k, 0)
        if not grows and len(cache.layers) <= own:
            raise InputError(
                f"this cache has no slots for the coda of exit {k + 1}: hand over a `DynamicCache()`, or read the last "
                "exit alone (without labels)."
            )
        if not costly and seen != (seen_own := cache.get_seq_length(own)):
            raise InputError(
                f"this cache holds {int(seen)} tokens, and the coda of exit {k + 1} has seen {int(seen_own)} of them: "
                "read the same exits in every call on one cache (labels in all of them or in none)."
            )


def _too_few(cache: Cache) -> InputError:
    return InputError(
        f"this cache has {len(cache.layers)} slots, one per layer and loop, too few for this call: make one for its "
        "loops."
    )
