"""Verbs of a looped model under one signature, and the one driver that runs them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscale.context import Context, Injected, Logits, Positions, State, Tokens
from loopscale.errors import require_looped

__all__ = [
    "Context",
    "FourFunctions",
    "Gated",
    "InContext",
    "Injected",
    "Logits",
    "Looped",
    "Positions",
    "State",
    "TakesContext",
    "Tokens",
    "Verbs",
    "continue_loops",
    "evaluating",
    "run_loops",
    "with_context",
]


@runtime_checkable
class Looped(Protocol):
    """A looped language model: a shared stack applied `num_loops` times and decoded after every loop.

    To audit, sweep or decode a model made elsewhere is to write these four functions for it. The loop index `k` counts
    from 0. A model whose loops need more than the state also has `context(tokens)`, and takes the result as the last
    argument of every verb (`TakesContext`).
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
class TakesContext(Protocol):
    """A looped model whose verbs take the context of a call; `carry` also takes what the loop received."""

    def context(self, tokens: Tokens) -> Context:
        """Return what the verbs of a call on these tokens share."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A looped model with an exit gate on its state."""

    def exit_probability(self, z: State, k: int) -> Float[Tensor, "batch seq"]:
        """Return the probability of leaving at loop k once it is reached, (batch, seq)."""
        ...


class Verbs(ABC):
    """The verbs of any looped model under one signature, pure in their arguments; `with_context` makes them.

    A context of None is plain causal attention from position 0, of a model that needs no more.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def num_loops(self) -> int:
        """The loops that a call runs unless it says otherwise."""
        return self.model.num_loops

    @property
    def reads_received(self) -> bool:
        """Whether `carry` reads what the loop received; else its `h` may be None."""
        return False

    @abstractmethod
    def context(self, tokens: Tokens) -> Context:
        """Return what the loops of a call on these tokens share: plain causal attention from position 0."""

    @abstractmethod
    def rows(self, context: Context, index: Tensor) -> Context:
        """Return the context of some rows of a call, by indices or a mask."""

    @abstractmethod
    def embed(self, tokens: Tokens, context: Context | None) -> State:
        """Return what the first loop receives."""

    @abstractmethod
    def step(self, h: State, k: int, context: Context | None) -> State:
        """Return the state of loop k, which received `h`."""

    @abstractmethod
    def carry(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return what loop k + 1 receives of the state `z` of loop k, which received `h`."""

    @abstractmethod
    def readout(self, z: State, k: int, context: Context | None) -> Logits:
        """Return the logits of exit k."""

    @abstractmethod
    def exit_probability(
        self, z: State, h: State | None, k: int, context: Context | None
    ) -> Float[Tensor, "batch seq"]:
        """Return the gate's probability of leaving at loop k, of a model that is `Gated`."""


@final
class FourFunctions(Verbs):
    """A model whose verbs read the state alone. It may remember the tokens of its latest `embed`.

    What its functions return is anything: whoever measures says in words what is wrong with it.
    """

    def context(self, tokens: Tokens) -> Context:
        """Return a context of tokens alone."""
        return Context(tokens)

    def rows(self, context: Context, index: Tensor) -> Context:
        """Return the context of some rows, and tell the model of them by an `embed`."""
        context = context.rows(index)
        self.model.embed(context.tokens)
        return context

    def embed(self, tokens: Tokens, context: Context | None) -> Any:
        """Return what the first loop receives."""
        return self.model.embed(tokens)

    def step(self, h: Any, k: int, context: Context | None) -> Any:
        """Return the state of loop k."""
        return self.model.step(h, k)

    def carry(self, z: Any, h: Any, k: int, context: Context | None) -> Any:
        """Return what loop k + 1 receives."""
        return self.model.carry(z, k)

    def readout(self, z: Any, k: int, context: Context | None) -> Any:
        """Return the logits of exit k."""
        return self.model.readout(z, k)

    def exit_probability(self, z: Any, h: Any, k: int, context: Context | None) -> Any:
        """Return the gate's probability of leaving at loop k."""
        return self.model.exit_probability(z, k)


@final
class InContext(Verbs):
    """A model whose verbs take the context, such as ours. Its attribute `reads_received` is True unless it says not."""

    @property
    def reads_received(self) -> bool:
        """Whether `carry` reads what the loop received."""
        return bool(getattr(self.model, "reads_received", True))

    def context(self, tokens: Tokens) -> Context:
        """Return the model's own context."""
        return self.model.context(tokens)

    def rows(self, context: Context, index: Tensor) -> Context:
        """Return the context of some rows."""
        return context.rows(index)

    def embed(self, tokens: Tokens, context: Context | None) -> State:
        """Return what the first loop receives."""
        return self.model.embed(tokens, context)

    def step(self, h: State, k: int, context: Context | None) -> State:
        """Return the state of loop k."""
        return self.model.step(h, k, context)

    def carry(self, z: State, h: State | None, k: int, context: Context | None) -> State:
        """Return what loop k + 1 receives."""
        return self.model.carry(z, k, context, h)

    def readout(self, z: State, k: int, context: Context | None) -> Logits:
        """Return the logits of exit k."""
        return self.model.readout(z, k, context)

    def exit_probability(
        self, z: State, h: State | None, k: int, context: Context | None
    ) -> Float[Tensor, "batch seq"]:
        """Return the gate's probability of leaving at loop k."""
        return self.model.exit_probability(z, k, context, h)


def with_context(model: Looped | Verbs | Any) -> Verbs:
    """Return the verbs of a model under the one signature that everything here calls."""
    if isinstance(model, Verbs):
        return model
    require_looped(model)
    takes = isinstance(model, TakesContext) and callable(model.context)
    return InContext(model) if takes else FourFunctions(model)


def run_loops(model: Looped | Verbs, input_ids: Tokens, num_loops: int | None = None) -> Iterator[State]:
    """Yield the state of every loop, one at a time, so that memory does not grow with the number of loops.

    Gradients flow as the caller's grad mode says. `num_loops` may exceed the trained depth; default `model.num_loops`.
    """
    verbs = with_context(model)
    context = verbs.context(input_ids)
    K = verbs.num_loops if num_loops is None else num_loops
    return continue_loops(verbs, verbs.embed(input_ids, context), 0, K, context)


def continue_loops(
    model: Looped | Verbs, h: State, first: int, num_loops: int, context: Context | None = None
) -> Iterator[State]:
    """Yield the states of loops `first` .. `num_loops` - 1, given what loop `first` receives and the context."""
    verbs = with_context(model)
    for k in range(first, num_loops):
        z = verbs.step(h, k, context)
        yield z
        if k + 1 < num_loops:
            h = verbs.carry(z, h, k, context)


@contextmanager
def evaluating(model: "Looped | nn.Module") -> Iterator[None]:
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
