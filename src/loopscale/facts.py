"""Facts of a looped model: what it was trained for and what it has, so that nobody asks which class it is.

A model says them by a method `facts()`. A model of four plain functions says nothing and gets the defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from loopscale.call import Call
from loopscale.errors import InputError, require_looped
from loopscale.objective import (
    Gate,
    Labels,
    Losses,
    Reading,
    Supervision,
    build_supervision,
    logit_losses,
)
from loopscale.state import PerToken
from loopscale.stepping import Context, Looped, State, with_context

ContextReading = Callable[[State, int, Labels, Context | None], PerToken]  # as `Reading`, of a call's context
ContextGate = Callable[[State, int, Context | None, State | None], PerToken]  # ... and what loop k received


@dataclass(frozen=True)
class TokenFlops:
    """Forward floating-point operations per token (a multiply-add is 2), for windows of one length."""

    embed: float
    step: float
    carry: float
    readout: float

    def at_exit(self, exit: int) -> float:
        """Return the operations that decode after `exit` loops (from 1): all loops, and one readout."""
        return self.embed + exit * self.step + (exit - 1) * self.carry + self.readout


@dataclass(frozen=True)
class Facts:
    """What is known of a looped model beside its verbs; None where it is not.

    trained_depth: loops that the loss saw. losses: what trained it. positions: tokens that a text may have, or that it
    was trained on. vocab_size: logits of an exit. readings: cross-entropies of an exit, (z, k, labels, context), by the
    way in which it is read; `trained` as the loss saw it. head: the weight of a head that is one plain matrix. flops:
    operations per token of windows of a length. gate: probability of leaving at a loop, (z, k, context, what the loop
    received). padding: the token that fills rows, where it is no other thing besides. configured: by the settings of
    this library, which remedies may then name. parts: the channels of a state that is several states side by side, by
    name; each is then audited on its own as well.
    """

    trained_depth: int
    losses: Losses
    readings: Mapping[str, ContextReading]
    positions: int | None = None
    vocab_size: int | None = None
    head: Float[Tensor, "vocab hidden"] | None = None
    flops: Callable[[int], TokenFlops] | None = None
    gate: ContextGate | None = None
    padding: int | None = None
    configured: bool = False
    parts: Mapping[str, slice] = field(default_factory=dict)


def facts_of(model: Looped | Any) -> Facts:
    """Return the facts of a model. Raises `InputError` for one that is no looped model, or whose `facts()` are none."""
    if isinstance(model, Call):
        model = model.model
    require_looped(model)
    says = getattr(model, "facts", None)
    if not callable(says):
        return default_facts(model)
    facts = says()
    if not isinstance(facts, Facts):
        raise InputError(f"{type(model).__name__}.facts() returned {type(facts).__name__}: return a `Facts`.")
    return facts


@final
class Reads:
    """Readings and gate of a model with the context of one call filled in: what losses and halting rules read.

    Of a model instead of a call: in no context, which is plain causal attention from position 0.
    """

    def __init__(self, of: Call | Looped | Any) -> None:
        model, context = (of.model, of.context) if isinstance(of, Call) else (of, None)
        facts = facts_of(model)
        received: Mapping[int, State] = of.received if isinstance(of, Call) else {}
        self.readings: Mapping[str, Reading] = {
            name: partial(_read_in, context, read) for name, read in facts.readings.items()
        }
        self.gate: Gate | None = None if facts.gate is None else partial(_gate_in, context, received, facts.gate)


def _read_in(context: Context | None, read: ContextReading, z: State, k: int, labels: Labels) -> PerToken:
    return read(z, k, labels, context)


def _gate_in(context: Context | None, received: Mapping[int, State], gate: ContextGate, z: State, k: int) -> Any:
    return gate(z, k, context, received.get(k))


def default_facts(model: Looped | Any) -> Facts:
    """Return what can be known of a model that does not say it.

    Its attributes `trained_loops`, `supervision` (a name or a `Supervision`), `positions` and `parts` (of its state)
    count where it has them: by default the loops that it runs, `per_loop` without a penalty, no limit, and one part.
    """
    trained = getattr(model, "trained_loops", None)
    depth = trained if isinstance(trained, int) else model.num_loops
    told = getattr(model, "supervision", None)
    rule = told if isinstance(told, Supervision) else build_supervision(told if isinstance(told, str) else "per_loop")
    positions = getattr(model, "positions", None)

    return Facts(
        trained_depth=depth,
        losses=Losses.of(depth, rule),
        readings={"trained": partial(_exit_losses, model)},
        positions=positions if isinstance(positions, int) else None,
        gate=partial(_gate_of, model) if callable(getattr(model, "exit_probability", None)) else None,
        padding=padding_of(model),
        parts=_parts_of(model),
    )


def _parts_of(model: object) -> Mapping[str, slice]:
    """Return the parts of the state that a model names. Raises `InputError` for what are none."""
    told = getattr(model, "parts", None)
    if told is None:
        return {}
    if not isinstance(told, Mapping) or not all(isinstance(channels, slice) for channels in told.values()):
        raise InputError(f"{type(model).__name__}.parts is {told!r}: give a slice of the state's channels by name.")
    return told


def _exit_losses(model: Looped, z: State, k: int, labels: Labels, context: Context | None) -> PerToken:
    return logit_losses(with_context(model).readout(z, k, context), labels)


# `Any`: what somebody else's gate returns is checked in words where it is first asked
def _gate_of(model: Looped, z: State, k: int, context: Context | None, received: State | None) -> Any:
    return with_context(model).exit_probability(z, received, k, context)


def padding_of(model: object) -> int | None:
    """Return the token that fills rows, as transformers' generate infers it: not one that also ends texts."""
    for where in ("generation_config", "config"):
        told = getattr(model, where, None)
        padding, ends = getattr(told, "pad_token_id", None), getattr(told, "eos_token_id", None)
        if isinstance(padding, int):
            return None if padding in (ends if isinstance(ends, list | tuple) else [ends]) else padding
    return None


def depth_of(model: Looped | Any, num_loops: int | Any | None) -> int:
    """Return the loops of a call: those that are asked for, or the model's. Raises `InputError` for fewer than 1."""
    require_looped(model)
    loops = model.num_loops if num_loops is None else num_loops
    if isinstance(loops, bool) or not isinstance(loops, int) or loops < 1:
        raise InputError(f"num_loops is {loops!r}: give a whole number of loops, at least 1.")
    return loops
