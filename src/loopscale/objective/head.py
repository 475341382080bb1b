"""Cross-entropy of one exit, token by token."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


def token_cross_entropy(
    x: Float[Tensor, "batch seq hidden"],
    weight: Float[Tensor, "vocab hidden"],
    labels: Int[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, in float32 or better; 0 where the label is ignored.

    `x` is what the head sees (after the readout's norm), `weight` the head's.
    """
    logits = F.linear(x, weight)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(wide.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return loss.view(labels.shape)
