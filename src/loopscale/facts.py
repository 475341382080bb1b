"""Facts of a looped model: what it was trained for and what it has, so that nobody asks which class it is.

A model says them by a method `facts()`. A model of four plain functions says nothing and gets the defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from loopscale.errors import InputError
from loopscale.objective import Gate, Labels, Losses, Reading, Supervision, build_supervision, logit_losses
from loopscale.required import require_looped
from loopscale.stepping import Call, Logits, Looped, State


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
    was trained on. vocab_size: logits of an exit. readings: cross-entropies of an exit by the way in which it is read;
    `trained` as the loss saw it. head: the weight of a head that is one plain matrix. flops: operations per token of
    windows of a length. gate: probability of leaving at a loop. padding: the token that fills rows, where it is no
    other thing besides. configured: by the settings of this library, which remedies may then name.
    """

    trained_depth: int
    losses: Losses
    readings: Mapping[str, Reading]
    positions: int | None = None
    vocab_size: int | None = None
    head: Float[Tensor, "vocab hidden"] | None = None
    flops: Callable[[int], TokenFlops] | None = None
    gate: Gate | None = None
    padding: int | None = None
    configured: bool = False


def facts_of(model: Looped | Any) -> Facts:
    """Return the facts of a model. Raises `InputError` for one that is no looped model, or whose `facts()` are none."""
    if isinstance(model, Call):
        return _within(model)
    require_looped(model)
    says = getattr(model, "facts", None)
    if not callable(says):
        return default_facts(model)
    facts = says()
    if not isinstance(facts, Facts):
        raise InputError(f"{type(model).__name__}.facts() returned {type(facts).__name__}: return a `Facts`.")
    return facts


def _within(call: Call) -> Facts:
    """Return the facts of the model that is called, with the call's context where something is read."""
    facts = facts_of(call.model)
    gate = None if facts.gate is None else call.exit_probability
    says = callable(getattr(call.model, "facts", None))
    return replace(facts, gate=gate, readings=facts.readings if says else {"trained": _read(call)})


def _read(model: Looped | Call) -> Reading:
    def read(z: State, k: int, labels: Labels) -> Float[Tensor, "batch seq"]:
        logits: Logits = model.readout(z, k)
        return logit_losses(logits, labels)

    return read


def default_facts(model: Looped | Any) -> Facts:
    """Return what can be known of a model that does not say it.

    Its attributes `trained_loops`, `supervision` (a name or a `Supervision`) and `positions` count where it has them:
    by default the loops that it runs, `per_loop` without a penalty, and no limit.
    """
    trained = getattr(model, "trained_loops", None)
    depth = trained if isinstance(trained, int) else model.num_loops
    told = getattr(model, "supervision", None)
    rule = told if isinstance(told, Supervision) else build_supervision(told if isinstance(told, str) else "per_loop")
    positions = getattr(model, "positions", None)

    return Facts(
        trained_depth=depth,
        losses=Losses.of(depth, rule),
        readings={"trained": _read(model)},
        positions=positions if isinstance(positions, int) else None,
        gate=getattr(model, "exit_probability", None),
        padding=padding_of(model),
    )


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
