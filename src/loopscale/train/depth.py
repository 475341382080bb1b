"""Depth schedules: how many loops a training step runs, and through how many of them its gradient goes.

A schedule is a function of the step alone, so that a resumed run draws what an uninterrupted one would have drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from transformers import TrainingArguments

from loopscale.model import LoopedForCausalLM


@final
@dataclass(frozen=True)
class Depth:
    """The loops of one step, and how many of them, the last ones, keep their gradient."""

    loops: int
    with_gradient: int


class DepthSchedule(ABC):
    """Depth of every training step."""

    @abstractmethod
    def depth(self, step: int) -> Depth:
        """Return the depth of optimizer step `step`, counted from 1."""

    @property
    @abstractmethod
    def depths(self) -> Collection[int]:
        """Every number of loops that may come."""


@final
@dataclass(frozen=True)
class FixedDepth(DepthSchedule):
    """The same loops in every step, with the whole gradient (arXiv 2606.24898)."""

    loops: int

    def depth(self, step: int) -> Depth:
        """Return the one depth there is."""
        return Depth(self.loops, self.loops)

    @property
    def depths(self) -> Collection[int]:
        """The one depth there is."""
        return (self.loops,)


def unreached(model: LoopedForCausalLM, depths: Collection[int]) -> tuple[set[str], set[str]]:
    """Return the names of parameters that the loss reaches at none of these depths, and at some of them only.

    The graph itself is asked, by a backward pass over two tokens: what configuration leaves a part without a gradient
    need not be known here. Gradients and random state stay as they were.
    """
    device = next(model.parameters()).device
    ids = torch.zeros((1, 2), dtype=torch.long, device=device)
    reached: list[set[str]] = []
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for loops in depths:
            loss = model(input_ids=ids, shift_labels=ids, num_loops=loops, supervised_exits_only=True).loss
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            reached.append({name for name, grad in zip(named, grads, strict=True) if grad is not None})
    always, ever = set.intersection(*reached), set.union(*reached)
    return named.keys() - ever, ever - always


@contextmanager
def reached_parameters(model: LoopedForCausalLM, schedule: DepthSchedule, args: TrainingArguments) -> Iterator[None]:
    """Keep parameters that no loss reaches out of what several processes wait for."""
    if args.world_size == 1:
        yield
        return
    never, sometimes = unreached(model, schedule.depths)
    args.ddp_find_unused_parameters = bool(sometimes)
    left_out = [p for name, p in model.named_parameters() if name in never]
    for parameter in left_out:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in left_out:
            parameter.requires_grad_(True)
