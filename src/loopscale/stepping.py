"""The four verbs of a looped model, and the one driver that runs them.

Shape letters in this library: B batch, T tokens, D hidden, N heads, H head size, V vocabulary, K loops.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
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

    def add(self, h: State, attention: Tensor | None) -> None:
        """Keep what a layer made, and where its attention looked if that is known."""
        ...


@dataclass(frozen=True)
class Context:
    """What the loops of one call share, besides the state: made once, handed to every verb, changed by none.

    `tokens` are those of the call, `injected` is e, what the prelude made of them, where something reads it again;
    `attention_mask` is in the form the attention implementation wants (None: plain causal), `rotary` the cosines and
    sines of RoPE, `cache` a transformers cache with one slot per (loop, layer), `recorder` what collects hidden states.
    """

    tokens: Tokens | None = None
    injected: Injected | None = None
    attention_mask: AttentionMask = None
    positions: Positions | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    cache: Cache | None = None
    recorder: Recording | None = None

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


def _some(x: Tensor, index: Tensor) -> Tensor:
    """Return some rows of what may serve all rows with one."""
    return x if len(x) == 1 else x[index]


@runtime_checkable
class Looped(Protocol):
    """A looped language model: a shared stack applied `num_loops` times and decoded after every loop.

    To audit, sweep or decode a model made elsewhere is to write these four functions for it. The loop index `k` counts
    from 0. `step` and `readout` are pure in their arguments, except that a model which injects its input again at every
    loop may keep what it needs of the tokens of the latest `embed` call.
    """

    num_loops: int

    def embed(self, input_ids: Tokens) -> State:
        """Return what the first loop receives, (batch, seq, hidden)."""
        ...

    def step(self, h: State, k: int) -> State:
        """Apply the shared stack once: the state H_k, which a readout sees and whose scale is measured."""
        ...

    def carry(self, z: State, k: int) -> State:
        """Return what loop k + 1 receives: the state itself, a normalised or a damped one. Never changes the shape."""
        ...

    def readout(self, z: State, k: int) -> Logits:
        """Return the logits of exit k, (batch, seq, vocab)."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A looped model with an exit gate on its state."""

    def exit_probability(self, z: State, k: int) -> Float[Tensor, "batch seq"]:
        """Return the probability of leaving at loop k once it is reached, (batch, seq)."""
        ...


def run_loops(model: Looped, input_ids: Tokens, num_loops: int | None = None) -> Iterator[State]:
    """Yield the state of every loop, one at a time, so that memory does not grow with the number of loops.

    Gradients flow as the caller's grad mode says. `num_loops` may exceed the trained depth; default `model.num_loops`.
    """
    return continue_loops(model, model.embed(input_ids), 0, model.num_loops if num_loops is None else num_loops)


def continue_loops(model: Looped, h: State, first: int, num_loops: int) -> Iterator[State]:
    """Yield the states of loops `first` .. `num_loops` - 1, given what loop `first` receives."""
    for k in range(first, num_loops):
        z = model.step(h, k)
        yield z
        if k + 1 < num_loops:
            h = model.carry(z, k)


@contextmanager
def evaluating(model: Looped) -> Iterator[None]:
    """Run in eval mode and without gradients; every part of the model is left in the mode it was in."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
