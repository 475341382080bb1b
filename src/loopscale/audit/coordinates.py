"""State variables that an audit asks about: a name, a value read off a state, and the field that moves it.

Letters: D hidden.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale import state
from loopscale.errors import InputError
from loopscale.stepping import State

PerToken = Float[Tensor, "batch seq"]
Vector = Float[Tensor, " hidden"]


class Coordinate(ABC):
    """A variable of every token's state.

    Write your own by giving `name`, `value` and `tangent`; state `positive` where the value is a length whose growth
    counts in factors (then drift and a second retention are logarithmic) and `remedy`, the line that a blind spot of
    this coordinate is answered with. `settings_remedy` is that line in the settings of our own models, and
    `one_loop_remedy` that where there is no other loop to carry anything to.
    """

    name: str
    unit: ClassVar[str] = "unit"
    positive: ClassVar[bool] = False
    remedy: ClassVar[str] = "let a supervised readout depend on it, penalise it, or take it out in carry"
    settings_remedy: ClassVar[str | None] = None
    one_loop_remedy: ClassVar[str | None] = None

    @abstractmethod
    def value(self, z: State) -> PerToken:
        """Return the coordinate of every token."""

    def remedy_for(self, configured: bool, num_loops: int) -> str:
        """Return the remedy in the words of the model it is for: one `configured` by our settings, or another's."""
        ours = self.one_loop_remedy if num_loops == 1 else self.settings_remedy
        return ours if configured and ours is not None else self.remedy

    @abstractmethod
    def tangent(self, z: State) -> State:
        """Return the field along which the coordinate moves, one vector per token; its length is one `unit`."""


@final
@dataclass(frozen=True)
class Scale(Coordinate):
    """The RMS of a token's state, s = sqrt(mean_c z_c^2); it moves along z itself, one e-fold per unit."""

    name: str = "scale"
    unit: ClassVar[str] = "e-fold"
    positive: ClassVar[bool] = True
    remedy: ClassVar[str] = (
        "penalise the mean square of the state, read out some supervised loop without a norm before the head, or "
        "normalise the state in carry"
    )
    settings_remedy: ClassVar[str | None] = (
        "penalise it (norm_penalty_coef: 0.01), read out some supervised loop raw (readout: raw or final_rmsnorm), or "
        "normalise between loops (recurrence: rmsnorm)"
    )
    one_loop_remedy: ClassVar[str | None] = "penalise it (norm_penalty_coef: 0.01), or read it out raw (readout: raw)"

    def value(self, z: State) -> PerToken:
        """Return s."""
        return state.scale(z)

    def tangent(self, z: State) -> State:
        """Return z."""
        return z


@final
@dataclass(frozen=True)
class Mean(Coordinate):
    """The mean over channels of a token's state; it moves along the ones vector. LayerNorm hides it."""

    name: str = "mean"
    remedy: ClassVar[str] = "read out through RMSNorm or raw, subtract the mean in carry, or penalise the state's norm"
    settings_remedy: ClassVar[str | None] = (
        "read out through RMSNorm or raw, subtract the mean in carry, or add a norm penalty"
    )
    one_loop_remedy: ClassVar[str | None] = "read out through RMSNorm or raw, or add a norm penalty"

    def value(self, z: State) -> PerToken:
        """Return the mean over channels."""
        return z.mean(-1)

    def tangent(self, z: State) -> State:
        """Return ones."""
        return torch.ones_like(z)


@final
@dataclass(frozen=True, eq=False)
class Direction(Coordinate):
    """The component of a state along one fixed unit vector."""

    vector: Vector
    name: str = "direction"

    def value(self, z: State) -> PerToken:
        """Return <z, v>."""
        return z @ self.vector.to(z)

    def tangent(self, z: State) -> State:
        """Return v for every token."""
        return self.vector.to(z).expand_as(z)


@final
@dataclass(frozen=True, eq=False)
class Subspace(Coordinate):
    """How much of a state lies in a fixed subspace: the RMS of its projection, which moves along that projection."""

    basis: Float[Tensor, "hidden rank"]  # orthonormal columns
    name: str = "subspace"
    unit: ClassVar[str] = "e-fold"
    remedy: ClassVar[str] = "penalise the norm of the state, or shrink or normalise it in carry"
    settings_remedy: ClassVar[str | None] = (
        "add a norm penalty, or shrink the carried state (recurrence: damped or rmsnorm)"
    )
    one_loop_remedy: ClassVar[str | None] = "add a norm penalty"
    smallest_gain: float = field(default=float("nan"))

    def value(self, z: State) -> PerToken:
        """Return the RMS over the D channels of the projection."""
        return torch.linalg.vector_norm(z @ self.basis.to(z), dim=-1) / z.shape[-1] ** 0.5

    def tangent(self, z: State) -> State:
        """Return the projection of z."""
        basis = self.basis.to(z)
        return (z @ basis) @ basis.T


@final
@dataclass(frozen=True, eq=False)
class Within(Coordinate):
    """A coordinate of one part of a state that is several states side by side: only that part's channels move."""

    inner: Coordinate
    part: str
    channels: slice

    def __post_init__(self) -> None:
        """Take over what the coordinate says of itself."""
        told = ("unit", "positive", "remedy", "settings_remedy", "one_loop_remedy")
        vars(self).update({word: getattr(self.inner, word) for word in told}, name=f"{self.inner.name}[{self.part}]")

    def value(self, z: State) -> PerToken:
        """Return the coordinate of the part."""
        return self.inner.value(z[..., self.channels])

    def tangent(self, z: State) -> State:
        """Return its field in the part, zeros elsewhere."""
        moved = torch.zeros_like(z)
        moved[..., self.channels] = self.inner.tangent(z[..., self.channels])
        return moved


scale = Scale()
mean = Mean()


def within(coordinate: Coordinate | Any, part: str, channels: slice | Any) -> Within:
    """Return a coordinate, such as `scale`, of the channels of one part of the state: it is called `scale[part]`.

    Raises `InputError` for what is no coordinate or no slice.
    """
    if not isinstance(coordinate, Coordinate) or not isinstance(channels, slice):
        raise InputError(f"part '{part}' needs a coordinate and a slice of channels, got {coordinate!r}, {channels!r}.")
    return Within(coordinate, part, channels)


def direction(v: Vector, name: str = "direction") -> Direction:
    """Return the coordinate along `v`, which is made a unit vector.

    Raises `InputError` where `v` is not one finite, non-zero vector.
    """
    if v.ndim != 1 or not torch.isfinite(v).all() or not v.any():
        raise InputError(
            f"direction '{name}' needs one finite, non-zero vector of the hidden size, got {list(v.shape)}."
        )
    return Direction(v.detach() / torch.linalg.vector_norm(v.detach()), name)


def unembedding_null(head: Float[Tensor, "vocab hidden"], tolerance: float = 0.01) -> Subspace:
    """Return the subspace that the LM head maps to nearly nothing.

    It is spanned by the right singular vectors of the head whose gain is below `tolerance` times the largest, and by
    the least one alone where none is. Rows are centred first: a move that adds the same number to every logit is
    nothing to a softmax. Raises `InputError` for weights that are not finite.
    """
    if not torch.isfinite(head).all():
        raise InputError("the weights of the LM head are not finite: there is nothing to measure.")
    wide = head.detach().double()
    wide = wide - wide.mean(0)
    energies, vectors = torch.linalg.eigh(wide.T @ wide)  # ascending
    gains = energies.clamp_min(0).sqrt() / energies[-1].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    rank = max(1, int((gains < tolerance).sum()))
    return Subspace(vectors[:, :rank].contiguous(), "unembedding_null", smallest_gain=float(gains[0]))
