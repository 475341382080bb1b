"""The norm penalty: a loss that sees scale when the readout does not."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscale.objective.supervision import Count
from loopscale.state import energy


def norm_penalty(
    states: Sequence[Float[Tensor, "batch seq hidden"]], mask: Bool[Tensor, "batch seq"], count: Count
) -> Float[Tensor, ""]:
    """Return the mean over loops, tokens and channels of z^2 (arXiv 2606.24898), before its coefficient.

    Tokens outside the mask do not count; `count` is the number of tokens the mean is taken over.
    """
    return torch.stack([(energy(z) * mask).sum() for z in states]).mean() / count
