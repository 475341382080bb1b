"""Blind directions without naming a coordinate: least visible to the losses, most retained by the loop.

A = E[g g^T] is the second moment of the unit gradients g that the losses send into the state at the loops they look
at, and C = E[w (Jw)^T] the mean own-token Jacobian of one more loop, measured by Jacobian-vector products of random
signs w. For a unit vector v, v^T A v is its mean squared visibility and v^T C v what is left of a move along it. The
directions sought are the top of C v = lambda (A + floor^2) v, where `floor` is the visibility below which nothing
counts as seen. Every second batch is kept out of the solution and measures what was found.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.audit.coordinates import Direction
from loopscale.audit.derivatives import exit_gradient, gate_gradient, push, unit
from loopscale.audit.losses import CROSS_ENTROPY, EXIT_GATE, PENALTY, Gate, Losses, gate_of, losses_for
from loopscale.audit.streams import Batch, Counted, inputs_and_labels
from loopscale.audit.verdict import Thresholds
from loopscale.errors import InputError
from loopscale.stepping import Looped, State, evaluating

Square = Float[Tensor, "hidden hidden"]


@dataclass(frozen=True)
class FoundDirection:
    """A unit vector of the state. Figures are those of batches that it was not found on, `fitted_` ones of the others.

    visibility: root mean squared share of the losses' gradients along it; retention: share of a move along it that the
    next loop leaves there. blind: visibility below the threshold and below the null's, retention above its own.
    """

    vector: tuple[float, ...]
    visibility: float
    retention: float
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

    @property
    def blind(self) -> tuple[Direction, ...]:
        """Return the blind directions as coordinates, to audit like any other."""
        return tuple(
            Direction(torch.tensor(d.vector), f"found_{i + 1}") for i, d in enumerate(self.directions) if d.blind
        )


def search(
    model: Looped,
    batches: Iterable[Batch],
    *,
    num_directions: int = 4,
    probes: int = 2,
    supervision: str | None = None,
    loop_weights: Sequence[float] | None = None,
    norm_penalty_coef: float | None = None,
    thresholds: Thresholds | None = None,
) -> SearchReport:
    """Find the `num_directions` linear directions of the state that are least visible and most retained.

    Memory is a few (hidden, hidden) matrices. `probes` random moves a loop and batch measure retention. Arguments
    about the loss are those of `audit`.

    Raises `InputError` for fewer than 2 batches: every second one is held out.
    """
    thresholds = thresholds or Thresholds()
    losses = losses_for(model, supervision, loop_weights, norm_penalty_coef)
    halves = (_Moments(), _Moments())
    with evaluating(model):
        gate = gate_of(model, losses)
        for i, (inputs, labels, counted) in enumerate(inputs_and_labels(batches)):
            _gather(halves[i % 2], model, losses, gate, inputs, labels, counted, probes)
    fit, held_out = halves
    if not held_out.tokens:
        raise InputError("a search needs at least 2 batches: every second one is held out to test what was found.")
    vectors = _most_retained_per_visible(fit, thresholds.visible)[:, :num_directions]
    null = _null_visibility(fit.gradients, held_out.gradients, vectors.shape[0])
    directions = tuple(_measure(v, fit, held_out, null, thresholds) for v in vectors.T)
    blind = vectors[:, [d.blind for d in directions]]
    return SearchReport(
        directions=directions,
        null_visibility=null,
        visible_energy=float((blind.T @ held_out.visible @ blind).trace()),
        retained_energy=float((blind.T @ held_out.retained @ blind).trace() / held_out.retained.trace()),
        tokens=fit.tokens,
        held_out_tokens=held_out.tokens,
        thresholds=thresholds,
    )


@final
class _Moments:
    """Running second moments of unit gradients, and of random moves with what one more loop makes of them."""

    def __init__(self) -> None:
        self.tokens, self.gradients, self.moves = 0, 0, 0
        self._visible: Tensor | float = 0.0
        self._retained: Tensor | float = 0.0

    def see(self, gradient: State, counted: Counted) -> None:
        """Take in the gradients of one loss at one loop; a token without a gradient counts as seeing nothing."""
        g = unit(gradient)[counted].double()
        self._visible = self._visible + g.T @ g
        self.gradients += len(g)

    def keep(self, move: State, left: State, counted: Counted) -> None:
        """Take in random moves and what is left of them after one more loop."""
        w, moved = move[counted].double(), left[counted].double()
        self._retained = self._retained + w.T @ moved
        self.moves += len(w)

    @property
    def visible(self) -> Square:
        """Return A; its trace is at most 1."""
        return torch.as_tensor(self._visible / self.gradients)

    @property
    def retained(self) -> Square:
        """Return the symmetric part of C: antisymmetric parts leave nothing along a direction."""
        mean = torch.as_tensor(self._retained / self.moves)
        return (mean + mean.T) / 2


def _gather(
    moments: _Moments,
    model: Looped,
    losses: Losses,
    gate: Gate | None,
    inputs: Tensor,
    labels: Tensor,
    counted: Counted,
    probes: int,
) -> None:
    """Add one batch: the gradients that every loss sends into every state, and random moves through every loop."""
    moments.tokens += int(counted.sum())
    z = model.step(model.embed(inputs), 0)
    for k in range(losses.num_loops):
        if losses.looks(CROSS_ENTROPY, k):
            moments.see(exit_gradient(model, z, k, labels)[0], counted)
        if losses.looks(PENALTY, k):
            moments.see(z, counted)
        if gate is not None and losses.looks(EXIT_GATE, k):
            moments.see(gate_gradient(gate, z, k), counted)
        if k + 1 < max(losses.num_loops, 2):
            z = _push_probes(moments, _one_loop(model, k), z, counted, probes)


def _one_loop(model: Looped, k: int) -> Callable[[Tensor], Tensor]:
    return lambda x: model.step(model.carry(x, k), k + 1)


def _push_probes(
    moments: _Moments, one_loop: Callable[[Tensor], Tensor], z: State, counted: Counted, probes: int
) -> State:
    after = z
    for _ in range(probes):
        move = torch.randint_like(z, 2) * 2 - 1
        after, left = push(one_loop, z, move)
        moments.keep(move, left, counted)
    return after


def _most_retained_per_visible(moments: _Moments, floor: float) -> Square:
    """Return unit eigenvectors of C v = lambda (A + floor^2) v as columns, largest lambda first."""
    A = moments.visible
    L = torch.linalg.cholesky(A + floor**2 * torch.eye(len(A)).to(A))
    whitened = torch.linalg.solve_triangular(L, moments.retained, upper=False)
    whitened = torch.linalg.solve_triangular(L, whitened.T, upper=False)
    _, y = torch.linalg.eigh((whitened + whitened.T) / 2)
    v = torch.linalg.solve_triangular(L.T, y.flip(1), upper=True)
    return v / torch.linalg.vector_norm(v, dim=0)


def _measure(v: Tensor, fit: _Moments, held_out: _Moments, null: float, thresholds: Thresholds) -> FoundDirection:
    def figures(moments: _Moments) -> tuple[float, float]:
        return float(v @ moments.visible @ v) ** 0.5, float(v @ moments.retained @ v)

    visibility, retention = figures(held_out)
    return FoundDirection(
        tuple(v.tolist()),
        visibility,
        retention,
        *figures(fit),
        blind=visibility < min(thresholds.visible, null) and retention > thresholds.retained,
    )


def _null_visibility(fitted: int, held_out: int, hidden: int) -> float:
    """Return the held-out visibility of the direction least visible to as many gradients of no preferred direction."""
    seeded = torch.Generator().manual_seed(0)

    def moment(count: int) -> Square:
        total = torch.zeros(hidden, hidden, dtype=torch.float64)
        for start in range(0, count, 8192):
            g = torch.randn(min(8192, count - start), hidden, generator=seeded, dtype=torch.float64)
            g = g / torch.linalg.vector_norm(g, dim=1, keepdim=True)
            total += g.T @ g
        return total / count

    least = torch.linalg.eigh(moment(fitted))[1][:, 0]
    return float(least @ moment(held_out) @ least) ** 0.5
