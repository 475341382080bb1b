"""The norm penalty: a loss that sees scale when the readout does not."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def state_energy(
    z: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, ""]:
    """Return the sum over unmasked tokens of the squared scale (mean over channels of z^2), in float32 or better."""
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    energy = wide.square().mean(-1)  # (B, T)
    return energy.sum() if mask is None else (energy * mask).sum()


def norm_penalty(
    states: Sequence[Float[Tensor, "batch seq hidden"]], mask: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean over loops, unmasked tokens and channels of z^2 (arXiv 2606.24898), before its coefficient."""
    energy = torch.stack([state_energy(z, mask) for z in states]).mean()
    return energy / (states[0][..., 0].numel() if mask is None else mask.sum())
