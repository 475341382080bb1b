"""Loss over all exits of one forward pass, with the head's gradient computed where the logits are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.objective.head import (
    IGNORED,
    Head,
    fused_cross_entropy,
    head_precision,
    plain_weight,
    recomputed_cross_entropy,
    token_cross_entropy,
)
from loopscale.objective.passes import Passes, differentiate
from loopscale.objective.supervision import Count, Gates, Supervision, TokenLosses
from loopscale.system.precision import widened


def exits_loss(
    supervision: Supervision,
    exit_inputs: Sequence[Float[Tensor, "batch seq hidden"] | None],
    head: Head,
    labels: Int[Tensor, "batch seq"],
    gates: Gates | None,
    count: Count,
    passes: Passes = differentiate,
) -> tuple[Float[Tensor, ""], TokenLosses]:
    """Return the loss in nats per token, and the token losses of every exit without a gradient.

    `exit_inputs` are what the head sees at each exit; None leaves out an exit that is not supervised (its losses are
    NaN). Exits that are not supervised never get a gradient. `head` is a weight or a module; one that is more than its
    weight is called. So is any head in float16, whose gradient can only be made once the loss is scaled. `passes`
    differentiate a chunk of a plain head's logits.
    """
    K, mask, weight = len(exit_inputs), labels != IGNORED, plain_weight(head)
    if weight is not None and head_precision(weight) == torch.float16:
        weight = None
    read = {k: x for k, x in enumerate(exit_inputs) if x is not None}
    precision = weight.dtype if weight is not None else next(iter(read.values())).dtype if read else torch.float32
    zero = torch.zeros(labels.shape, dtype=widened(precision), device=labels.device)
    losses: dict[int, Tensor] = {}  # tensors are chosen by Python's own numbers: indexing by a list would sync
    carrier: Tensor | float = 0.0  # has the value 0 and the gradient of the supervised exits
    seen = {k: x for k, x in read.items() if supervision.supervises(k, K)} if torch.is_grad_enabled() else {}
    if weight is None:
        losses = {k: recomputed_cross_entropy(x, head, labels) for k, x in seen.items()}
    elif seen:
        weights = _token_weights(supervision, zero.expand(K, *labels.shape), gates, mask, count)
        weighted, rows = fused_cross_entropy(
            [x.flatten(0, 1) for x in seen.values()],
            weight,
            labels.flatten(),
            torch.stack([weights[k].flatten() for k in seen]),
            passes=passes,
        )
        carrier = weighted - weighted.detach()
        losses = {k: row.view(labels.shape) for k, row in zip(seen, rows, strict=True)}
    with torch.no_grad():
        losses |= {k: token_cross_entropy(x, head, labels) for k, x in read.items() if k not in losses}
    loss = supervision.loss(torch.stack([losses.get(k, zero) for k in range(K)]), gates, mask, count) + carrier
    unknown = torch.full_like(zero, torch.nan)
    return loss, torch.stack([losses.get(k, unknown).detach() for k in range(K)])


def _token_weights(
    supervision: Supervision, at: TokenLosses, gates: Gates | None, mask: Tensor, count: Count
) -> TokenLosses:
    """Return the derivative of the loss by each token loss: the loss is linear in them, so any values will do."""
    at = at.clone().requires_grad_()
    loss = supervision.loss(at, None if gates is None else gates.detach(), mask, count)
    return torch.autograd.grad(loss, at)[0]
