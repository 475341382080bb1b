"""Norm, scale, direction and angular step of a state, each defined once.

All are taken in float32 or better whatever the state's precision, so that a figure means the same wherever it is read.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loopscale.stepping import State
from loopscale.system.precision import widened

PerToken = Float[Tensor, "batch seq"]


def room(dtype: torch.dtype, hidden: int) -> float:
    """Return the largest number that channels of a state may be: of its dtype, and with squares that can be added."""
    return min(torch.finfo(dtype).max, math.sqrt(torch.finfo(widened(dtype)).max / hidden))  # as `norm` adds them up


def norm(z: State) -> PerToken:
    """Return the L2 norm ||z||_2 of every token's state, which arXiv 2606.24898 reports; its derivative at 0 is 0."""
    return torch.linalg.vector_norm(z, dim=-1, dtype=widened(z.dtype))


@torch.no_grad()
def row_norms(states: Sequence[State], attention_mask: object = None) -> Float[Tensor, "batch loops"]:
    """Return the mean norm of every row's real tokens after every loop, detached and without a sync.

    A mask of another form than (batch, seen + seq) tells nothing here: all tokens count.
    """
    norms = torch.stack([norm(z) for z in states], 1)  # (batch, loops, seq)
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return norms.mean(-1)
    real = attention_mask[:, None, -norms.shape[-1] :].to(norms.dtype)  # a mask tells of what the cache holds first
    return (norms * real).sum(-1) / real.sum(-1).clamp_min(1)


def scale(z: State) -> PerToken:
    """Return s, the RMS of every token's state: its norm over the square root of the hidden size."""
    return norm(z) / z.shape[-1] ** 0.5


def energy(z: State) -> PerToken:
    """Return s^2, the mean over channels of z^2: smooth at 0."""
    return z.to(widened(z.dtype)).square().mean(-1)


def direction(z: State) -> State:
    """Return u = z / s, of unit RMS; it fades to 0 where s is so small that the squares it is taken from underflow."""
    wide = z.to(widened(z.dtype))
    return wide / scale(z).clamp_min(torch.finfo(wide.dtype).tiny ** 0.5)[..., None]


def angular_step(z: State, after: State) -> PerToken:
    """Return ||u' - u||_2: how far one loop turns the direction, times the square root of the hidden size."""
    return torch.linalg.vector_norm(direction(after) - direction(z), dim=-1)


def radial_step(z: State, after: State) -> PerToken:
    """Return <u, z' - z> / hidden: how far one loop moves the state along its own direction, in units of scale."""
    return (direction(z) * (after - z)).mean(-1)
