"""Unrolled call: every loop of a forward pass, what the head sees at the exits that are read on the way, and the loss.

Letters: B batch, T tokens, D hidden, K loops.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loopscale.model.blocks import cast
from loopscale.objective import IGNORED, Labels, OneMoreLoop, Supervision, exits_loss
from loopscale.stepping import Context, State
from loopscale.system.precision import autocast_dtype

if TYPE_CHECKING:
    from loopscale.model.looped import LoopedForCausalLM


@dataclass(frozen=True)
class Unrolled:
    """Every loop's state, what the head sees of it at the exits that were to be read, the gates, and one more loop."""

    states: list[Tensor]
    exit_inputs: list[Tensor | None]
    gates: Float[Tensor, "loops batch seq"] | None
    onward: OneMoreLoop


def unroll(model: "LoopedForCausalLM", h: State, context: Context, read: list[bool], with_gradient: int) -> Unrolled:
    """Run as many loops as `read` has entries, which say what exits to read; the last ones keep their gradient."""
    step: Callable[..., Tensor] = model.step
    exit_input: Callable[..., Tensor] = partial(_exit_input, model)
    if model.checkpoint_loops and model.training:
        step, exit_input = _recomputed(step), _recomputed(exit_input)
    states: list[Tensor] = []
    gates: list[Tensor] = []
    exit_inputs: list[Tensor | None] = []
    for k, is_read in enumerate(read):
        constant = k < len(read) - with_gradient  # the states of this loop, for the gradient
        h = h.detach() if constant else h
        with torch.no_grad() if constant else nullcontext():
            z = step(h, k, context)
        states.append(z)
        # here, not after the loops: the backward pass then needs one exit's gradients at a time
        exit_inputs.append(exit_input(z, k, context, len(read)) if is_read else None)
        if model.exit_gate is not None:
            gates.append(model.exit_probability(z, k, context, h))
        if k + 1 < len(read):
            with torch.no_grad() if constant else nullcontext():
                h = model.carry(z, k, context, h)
    onward = OneMoreLoop(model, context, h, len(read) - 1)
    return Unrolled(states, exit_inputs, torch.stack(gates) if gates else None, onward)


def is_final(model: "LoopedForCausalLM", k: int, num_loops: int) -> bool | None:
    """Return whether to read exit k as the final one: in training the last that runs, else (None) the trained."""
    return k + 1 == num_loops if model.training else None


def unrolled_loss(
    model: "LoopedForCausalLM", supervision: Supervision, unrolled: Unrolled, labels: Labels, count: Tensor | int
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch loops"]]:
    """Return the loss, penalties included, and the cross-entropy of every row and exit, in nats per token."""
    loss, token_losses = exits_loss(
        supervision, unrolled.exit_inputs, model.lm_head, labels, unrolled.gates, count, model.head_passes
    )
    for penalty in model.penalties:
        loss = loss + penalty.of_step(unrolled.onward)(unrolled.states, labels != IGNORED, count)
    return loss, (token_losses.sum(2) / (labels != IGNORED).sum(1).clamp_min(1)).T


def _exit_input(model: "LoopedForCausalLM", z: State, k: int, context: Context, num_loops: int) -> State:
    """Return what the head sees, in its precision. Hidden states are recorded of a call's last exit alone."""
    if k + 1 < num_loops:
        context = replace(context, recorder=None)
    seen = model.readout_state(z, k, context, is_final(model, k, num_loops))
    return cast(seen, autocast_dtype(seen.device.type))


def _recomputed(verb: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the same function, computed again in the backward pass instead of keeping its activations."""
    return partial(checkpoint, verb, use_reentrant=False)
