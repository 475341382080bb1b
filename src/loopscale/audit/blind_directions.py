"""Blind directions without naming a coordinate: least visible to the losses, most retained by the loop.

A = E[g g^T] is the second moment of the unit gradients g that the losses send into the state at the loops they look
at, and C = E[w (Jw)^T] the mean own-token Jacobian of one more loop, measured by Jacobian-vector products of random
signs w. For a unit vector v, v^T A v is its mean squared visibility and v^T C v what is left of a move along it, with a
standard error that M = E[(Jw)(Jw)^T] gives: the other channels of w, which J may bring into v, are its noise. The
directions sought are the top of C v = lambda (A + floor^2) v, where `floor` is a visibility of rounding's size. Were it
larger, directions that only rare tokens see would stand as high as those that none does. Every second batch is kept out
of the solution and measures what was found.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from loopscale.audit.coordinates import Direction
from loopscale.audit.measurement.checks import (
    Finite,
    checked,
    few_tokens,
    first_state,
    require_told,
    runs_past_trained_depth,
)
from loopscale.audit.measurement.derivatives import push, telling
from loopscale.audit.measurement.moments import Found, Moments, most_retained_per_visible, null_visibility
from loopscale.audit.measurement.streams import Counted
from loopscale.audit.measurement.training_losses import told_losses
from loopscale.audit.verdict import Thresholds
from loopscale.batches import Batches, Window
from loopscale.call import Call
from loopscale.errors import InputError
from loopscale.facts import Reads, facts_of
from loopscale.objective import Losses
from loopscale.processes import each
from loopscale.stepping import Looped, State, evaluating

Signs = Bool[Tensor, "moves batch seq hidden"]
TOKENS_PER_CHANNEL = 4  # of each half, from which on a planted direction was found every time
FLOOR = 1e-6  # of visibility; float32 leaves about 1e-8 to 1e-7 of what a readout hides
ERRORS = 2.0  # standard errors by which a retention must be above its threshold


@dataclass(frozen=True)
class FoundDirection:
    """A unit vector of the state. Figures are those of batches that it was not found on, `fitted_` ones of the others.

    visibility: root mean squared share of the losses' gradients along it; retention: share of a move along it that the
    next loop leaves there, and its standard error. blind: visibility below the threshold and below the null's,
    the retention's magnitude above its own by two standard errors.
    """

    vector: tuple[float, ...]
    visibility: float
    retention: float
    retention_se: float
    fitted_visibility: float
    fitted_retention: float
    blind: bool


@dataclass(frozen=True)
class SearchReport:
    """The directions, least controlled first, and what the same search finds where there is nothing to find.

    null_visibility: held-out visibility of the least visible direction of as many gradients without any preferred
    direction. The blind directions together hold `visible_energy` of the gradients' squared length and
    `retained_energy` of the loop's mean Jacobian (its trace).
    """

    directions: tuple[FoundDirection, ...]
    null_visibility: float
    visible_energy: float
    retained_energy: float
    tokens: int
    held_out_tokens: int
    thresholds: Thresholds
    notes: tuple[str, ...] = ()

    @property
    def blind(self) -> tuple[Direction, ...]:
        """Return the blind directions as coordinates, to audit like any other."""
        return tuple(
            Direction(torch.tensor(d.vector), f"found_{i + 1}") for i, d in enumerate(self.directions) if d.blind
        )


def search(
    model: Looped | Any,
    batches: Batches,
    *,
    num_directions: int = 4,
    probes: int = 2,
    supervision: str | None = None,
    loop_weights: Sequence[float] | None = None,
    norm_penalty_coef: float | None = None,
    thresholds: Thresholds | None = None,
) -> SearchReport:
    """Find the `num_directions` linear directions of the state that are least visible and most retained.

    Memory is a few (hidden, hidden) matrices, and a byte a channel for every token and move of a batch. `probes` random
    moves a loop and batch measure retention. Arguments about the loss are those of `audit`.

    Raises `InputError` for a wrong model or batches, as `audit` does, and for fewer than 2 batches: every second one is
    held out.
    """
    thresholds = thresholds or Thresholds()
    facts = facts_of(model)
    losses = told_losses(facts, supervision, loop_weights, norm_penalty_coef)
    if not losses.look_anywhere:
        raise InputError("no loss looks at any loop: there is nothing that could see a direction.")
    if num_directions < 1 or probes < 1:
        raise InputError(f"num_directions is {num_directions} and probes {probes}: give at least 1 of each.")
    halves = (Moments(), Moments())
    with evaluating(model):
        first, windows = checked(model, batches)
        if losses.num_loops == 1 and not runs_past_trained_depth(model, first.inputs, 1):
            raise InputError("the model has one loop and cannot run another: nothing is carried on.")
        call = Call(model, few_tokens(model, first.inputs))
        z = first_state(call)
        for loss in losses:
            loss.require(Reads(call), model, z)
        moves = max(losses.num_loops - 1, 1) * probes
        drawn = _with_moves(windows, moves, z.shape[-1])
        for i, found in enumerate(each(drawn, lambda some: _of_batch(model, losses, *some))):
            halves[i % 2].take_in(found)
    fit, held_out = halves
    if not (fit.tokens and held_out.tokens):
        raise InputError("a search needs at least 2 batches: every second one is held out to test what was found.")
    for half, k in product(halves, range(losses.num_loops)):
        if losses.exits.looks(k):
            require_told(int(half.told.get((losses.exits.name, k), 0)), k)
    vectors = most_retained_per_visible(fit, FLOOR)[:, :num_directions]
    null = null_visibility(fit.gradients, held_out.gradients, vectors.shape[0])
    directions = tuple(_measure(v, fit, held_out, null, thresholds) for v in vectors.T)
    blind = vectors[:, [d.blind for d in directions]]
    return SearchReport(
        directions=directions,
        null_visibility=null,
        visible_energy=float((blind.T @ held_out.visible @ blind).trace()),
        retained_energy=held_out.retained_share(blind),
        tokens=fit.tokens,
        held_out_tokens=held_out.tokens,
        thresholds=thresholds,
        notes=_notes(halves, vectors.shape[0], all(d.blind for d in directions)),
    )


def _notes(halves: tuple[Moments, Moments], hidden: int, all_blind: bool) -> tuple[str, ...]:
    """Say so where there is too little to find anything by, and where there may be more than was asked for."""
    tokens, left_out = min(half.tokens for half in halves), sum(half.looked - half.gradients for half in halves)
    few = (
        f"{tokens} tokens in a half for {hidden} channels may miss a direction that is there: "
        f"give {TOKENS_PER_CHANNEL * hidden}."
    )
    more = "every direction that was asked for is blind: there may be more (num_directions)."
    rounding = f"{left_out} gradients of tokens are left out: they are nothing but rounding."
    applies = {few: tokens < TOKENS_PER_CHANNEL * hidden, more: all_blind, rounding: left_out > 0}
    return tuple(note for note, true in applies.items() if true)


def _with_moves(windows: Iterable[Window], moves: int, hidden: int) -> Iterator[tuple[Window, Signs]]:
    """Yield every batch with the signs of its random moves: the same search draws the same."""
    signs: torch.Generator | None = None
    for window in windows:
        device = window.inputs.device
        signs = signs or torch.Generator(device).manual_seed(0)
        shape = (*window.inputs.shape, hidden)
        drawn = [torch.randint(2, shape, generator=signs, device=device).bool() for _ in range(moves)]
        yield window, torch.stack(drawn)


def _of_batch(model: Looped, losses: Losses, window: Window, signs: Signs) -> Found:
    """Return the moments of one batch: of the gradients of every loss and state, and of random moves in every loop."""
    moments = Moments()
    inputs, labels, counted, _ = window
    tokens = int(counted.sum())
    moments.tokens += tokens
    call, finite = Call(model, inputs), Finite()
    reads, z = Reads(call), first_state(call)
    steps = max(losses.num_loops - 1, 1)
    for k in range(losses.num_loops):
        finite.note_state(z, k)
        for loss in losses:
            if loss.looks(k):
                gradient, token_losses = loss.gradient(reads, z, k, labels)
                finite.note(gradient, loss.described(k), counted)
                moments.see(loss.name, k, gradient, counted & telling(gradient, token_losses))
        moments.looked += tokens * sum(loss.looks(k) for loss in losses)
        if k < steps:
            z = _push_probes(moments, _one_loop(call, k), z, counted, signs.chunk(steps)[k])
    finite.require()
    return moments.found()


def _one_loop(call: Call, k: int) -> Callable[[Tensor], Tensor]:
    return lambda x: call.step(call.carry(x, k), k + 1)


def _push_probes(
    moments: Moments, one_loop: Callable[[Tensor], Tensor], z: State, counted: Counted, signs: Signs
) -> State:
    after = z
    for sign in signs:
        move = sign.to(z) * 2 - 1
        after, left = push(one_loop, z, move)
        moments.keep(move, left, counted)
    return after


def _measure(v: Tensor, fit: Moments, held_out: Moments, null: float, thresholds: Thresholds) -> FoundDirection:
    def figures(moments: Moments) -> tuple[float, float]:
        seen = max(float(v @ moments.visible @ v), 0.0)  # less than none is rounding
        return seen**0.5, float(v @ moments.retained @ v)

    visibility, retention = figures(held_out)
    error = held_out.retention_se(v)
    return FoundDirection(
        tuple(v.tolist()),
        visibility,
        retention,
        error,
        *figures(fit),
        blind=visibility < min(thresholds.visible, null) and abs(retention) - ERRORS * error > thresholds.retained,
    )
