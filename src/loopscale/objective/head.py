"""The LM head's cross-entropy: plain, and fused for training so that no K x B x T x V tensor of logits ever exists."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORED = -100
CHUNK_BYTES = 256 * 2**20  # of logits and their softmax alive at once; small chunks starve the matrix units
BYTES_PER_LOGIT = 10  # logits and gradient in the head's precision, log-probabilities in float32


def token_cross_entropy(
    x: Float[Tensor, "batch seq hidden"], weight: Float[Tensor, "vocab hidden"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, in float32 or better; 0 where the label is ignored.

    `x` is what the head sees (after the readout's norm), `weight` the head's. The plain path: with gradients enabled
    all logits are kept for autograd; without, they come and go in chunks of rows.
    """
    rows, targets = x.flatten(0, 1), labels.flatten()
    size = len(rows) if torch.is_grad_enabled() else chunk_rows(weight, CHUNK_BYTES)
    losses = [
        _cross_entropy(rows[i : i + size], weight, targets[i : i + size]) for i in range(0, len(rows), max(1, size))
    ]
    return torch.cat(losses).view(labels.shape)


def fused_cross_entropy(
    x: Float[Tensor, "rows hidden"],
    weight: Float[Tensor, "vocab hidden"],
    labels: Int[Tensor, " rows"],
    row_weights: Float[Tensor, " rows"],
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Float[Tensor, ""], Float[Tensor, " rows"]]:
    """Return the weighted sum of the rows' cross-entropies, and the cross-entropies themselves without a gradient.

    The gradient of a weighted sum is known as soon as its logits are, so it is computed chunk by chunk in the forward
    pass and the logits are dropped: three matrix products, none of them twice. Under autocast they run in its
    precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        precision = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(precision), weight.to(precision)
    return _FusedCrossEntropy.apply(x, weight, labels, row_weights, chunk_bytes)


def chunk_rows(weight: Float[Tensor, "vocab hidden"], chunk_bytes: int) -> int:
    """Return how many rows of logits fit into so many bytes; at least 1."""
    return max(1, chunk_bytes // (weight.shape[0] * BYTES_PER_LOGIT))


def _cross_entropy(rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(rows, weight)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none")


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, row_weights: Tensor, chunk_bytes: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        rows = chunk_rows(weight, chunk_bytes)
        losses = x.new_empty(len(x), dtype=wide)
        grad_x = torch.empty_like(x)
        grad_weight: Tensor | None = None
        kept = labels != IGNORED
        targets = labels.where(kept, 0)[:, None]  # (R, 1)
        scales = (row_weights * kept).to(wide)[:, None]
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            logits = x[part] @ weight.T  # (r, V)
            log_p = torch.log_softmax(logits, -1, dtype=wide)
            losses[part] = -log_p.gather(1, targets[part]).squeeze(1) * kept[part]
            grad = log_p.exp_().mul_(scales[part]).scatter_add_(1, targets[part], -scales[part]).to(x.dtype)
            torch.mm(grad, weight, out=grad_x[part])
            product = grad.T @ x[part]
            grad_weight = product.to(wide) if grad_weight is None else grad_weight.add_(product)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return (losses * row_weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad_sum, (grad_weight * grad_sum).to(ctx.weight_dtype), None, None, None
