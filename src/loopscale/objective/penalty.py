"""The norm penalty: a loss that sees scale when the readout does not."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscale.objective.supervision import Count
from loopscale.precision import widened


def norm_penalty(
    states: Sequence[Float[Tensor, "batch seq hidden"]], mask: Bool[Tensor, "batch seq"], count: Count
) -> Float[Tensor, ""]:
    """Return the mean over loops, tokens and channels of z^2 (arXiv 2606.24898), before its coefficient.

    Tokens outside the mask do not count; `count` is the number of tokens the mean is taken over.
    """
    return torch.stack([_energy(z, mask) for z in states]).mean() / count


def _energy(z: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, ""]:
    """Return the sum over unmasked tokens of the squared scale (mean over channels of z^2)."""
    return (z.to(widened(z.dtype)).square().mean(-1) * mask).sum()
