"""The LM head's cross-entropy: plain, and fused for training so that no K x B x T x V tensor of logits ever exists."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORED = -100
CHUNK_BYTES = 256 * 2**20  # of logits and their softmax alive at once; small chunks starve the matrix units


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
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return _FusedCrossEntropy.apply(x, weight, labels, row_weights, precision, chunk_bytes)


def chunk_rows(weight: Float[Tensor, "vocab hidden"], chunk_bytes: int) -> int:
    """Return how many rows of logits fit in so many bytes: in the head's precision, and twice in float32 or better."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return max(1, chunk_bytes // (len(weight) * (weight.element_size() + 2 * wide.itemsize)))


def _cross_entropy(rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(rows, weight)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none")


def _into(buffer: Tensor, values: Tensor) -> Tensor:
    """Return the values in the buffer's precision; where that is theirs, they are in the buffer already."""
    return values if buffer.dtype == values.dtype else buffer.copy_(values)


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, row_weights: Tensor, precision: torch.dtype, budget: int
    ) -> tuple[Tensor, Tensor]:
        head, rows = weight.to(precision), x.to(precision)
        wide = torch.promote_types(precision, torch.float32)
        kept = labels != IGNORED
        targets = labels.where(kept, 0)[:, None]  # (R, 1)
        # rows are weighted on the thin side of the products, so that no pass over the logits is spent on it
        weights = (row_weights * kept).to(wide)[:, None]
        losses = x.new_empty(len(x), dtype=wide)
        grad_x = torch.empty_like(rows)
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
        # allocated once: fresh memory for every chunk costs more than what is computed in it
        chunk = max(1, min(len(x), chunk_rows(head, budget)))
        logits_ = head.new_empty(chunk, len(head))
        p_, product = head.new_empty(chunk, len(head), dtype=wide), torch.empty_like(head)
        # in full precision nothing is widened
        wide_, wide_product = (
            (logits_, product) if precision == wide else (torch.empty_like(p_), torch.empty_like(grad_weight))
        )
        for start in range(0, len(x), chunk):
            part = slice(start, start + chunk)
            r = len(labels[part])
            logits, p, target = logits_[:r], p_[:r], targets[part]  # (r, V), (r, V), (r, 1)
            torch.mm(rows[part], head.T, out=logits)
            torch.softmax(_into(wide_[:r], logits), -1, out=p)
            log_sum = logits.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()  # the largest p is at least 1 / V
            losses[part] = ((log_sum - logits.gather(1, target)) * kept[part, None]).squeeze(1)
            p.scatter_add_(1, target, -torch.ones_like(log_sum))  # the gradient of a row's cross-entropy by its logits
            grad = p if precision == wide else logits.copy_(p)
            torch.mm(grad, head, out=grad_x[part])
            torch.mm(grad.T, (rows[part] * weights[part]).to(precision), out=product)
            grad_weight += _into(wide_product, product)
        ctx.save_for_backward(grad_x.mul_(weights), grad_weight)
        ctx.dtypes = x.dtype, weight.dtype
        ctx.mark_non_differentiable(losses)
        return (losses * row_weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        return (grad_x * grad_sum).to(x_dtype), (grad_weight * grad_sum).to(weight_dtype), None, None, None, None
