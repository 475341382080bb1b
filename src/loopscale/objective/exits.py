"""The loss over all exits of one forward pass, with the head's gradient computed where the logits are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.objective.head import IGNORED, fused_cross_entropy, token_cross_entropy
from loopscale.objective.passes import Passes, differentiate
from loopscale.objective.supervision import Count, Gates, Supervision, TokenLosses


def exits_loss(
    supervision: Supervision,
    exit_inputs: Sequence[Float[Tensor, "batch seq hidden"] | None],
    weight: Float[Tensor, "vocab hidden"],
    labels: Int[Tensor, "batch seq"],
    gates: Gates | None,
    count: Count,
    passes: Passes = differentiate,
) -> tuple[Float[Tensor, ""], TokenLosses]:
    """Return the loss in nats per token, and the token losses of every exit without a gradient.

    `exit_inputs` are what the head sees at each exit; None leaves out an exit that is not supervised (its losses are
    NaN). Exits that are not supervised never get a gradient. `passes` differentiate a chunk of logits.
    """
    K, mask = len(exit_inputs), labels != IGNORED
    wide = torch.promote_types(weight.dtype, torch.float32)
    losses = torch.zeros(K, *labels.shape, dtype=wide, device=labels.device)
    seen = [k for k in range(K) if supervision.supervises(k, K)]
    carrier: Tensor | float = 0.0  # has the value 0 and the gradient of the supervised exits
    if torch.is_grad_enabled():
        weights = _token_weights(supervision, losses, gates, mask, count)
        rows = [x.flatten(0, 1) for k in seen if (x := exit_inputs[k]) is not None]
        weighted, row_losses = fused_cross_entropy(
            rows, weight, labels.flatten(), weights[seen].flatten(1), passes=passes
        )
        carrier = weighted - weighted.detach()
        losses[seen] = row_losses.view(len(seen), *labels.shape)
    with torch.no_grad():
        for k, x in enumerate(exit_inputs):
            if x is not None and not (k in seen and torch.is_tensor(carrier)):
                losses[k] = token_cross_entropy(x, weight, labels)
    loss = supervision.loss(losses, gates, mask, count) + carrier
    unknown = [k for k, x in enumerate(exit_inputs) if x is None]
    return loss, losses.index_fill(0, torch.tensor(unknown, dtype=torch.long, device=losses.device), torch.nan)


def _token_weights(
    supervision: Supervision, like: TokenLosses, gates: Gates | None, mask: Tensor, count: Count
) -> TokenLosses:
    """Return the derivative of the loss by each token loss: the loss is linear in them, so any values will do."""
    at = torch.zeros_like(like, requires_grad=True)
    loss = supervision.loss(at, None if gates is None else gates.detach(), mask, count)
    return torch.autograd.grad(loss, at)[0]
