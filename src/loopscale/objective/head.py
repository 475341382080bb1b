"""Cross-entropy of the LM head: plain, and fused for training so that no K x B x T x V tensor of logits ever exists.

Logits come in chunks of rows, large enough for the matrix units; what is done to a chunk is in `passes`. That is for a
head that is one matrix. Any other (an adapter, a bias, hooks, eight-bit weights) is called, as a forward would.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from loopscale.errors import InputError
from loopscale.hf import does_more_than_its_class, holds_numbers_alone
from loopscale.objective.passes import Passes, blocks_of, differentiate, equal_parts, longest
from loopscale.system.precision import autocast_dtype, widened

IGNORED = -100
CHUNK_BYTES = 128 * 2**20


Head = Tensor | nn.Module  # a weight (vocab, hidden), or what makes logits of states


def plain_weight(head: Head) -> Float[Tensor, "vocab hidden"] | None:
    """Return the weight of a head that is nothing but a product with it; None for a head that must be called.

    An adapter, a bias, a parametrization, a hook, weights elsewhere or in integers make a head more than its weight.
    """
    if isinstance(head, Tensor):
        return head
    if type(head) is not nn.Linear or head.bias is not None or does_more_than_its_class(head):
        return None
    weight = head.weight
    return weight if holds_numbers_alone(weight) and weight.is_floating_point() else None


def head_precision(weight: Float[Tensor, "vocab hidden"]) -> torch.dtype:
    """Return the precision of the head's products: autocast's where it is on."""
    return autocast_dtype(weight.device.type) or weight.dtype


def token_cross_entropy(
    x: Float[Tensor, "batch seq hidden"], head: Head, labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, in float32 or better; 0 where the label is ignored.

    `x` is what the head sees (after the readout's norm). The plain path: with gradients enabled all logits are kept for
    autograd; without, those of a plain head come and go in chunks of rows.
    """
    targets, weight = labels.flatten(), plain_weight(head)
    if weight is None or torch.is_grad_enabled():
        logits = head(x) if isinstance(head, nn.Module) else F.linear(x, head)
        return _cross_entropy_of(logits.flatten(0, 1), targets).view(labels.shape)
    rows = x.flatten(0, 1)
    losses = torch.empty(len(rows), dtype=widened(weight.dtype), device=rows.device)
    for chunk in _chunks(len(rows), weight, CHUNK_BYTES):
        losses[chunk] = _cross_entropy_of(F.linear(rows[chunk], weight), targets[chunk])
    return losses.view(labels.shape)


def recomputed_cross_entropy(
    x: Float[Tensor, "batch seq hidden"], head: Head, labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the same for training through a head that is called: its logits are made again in the backward pass.

    So those of one exit at a time exist.
    """
    return checkpoint(token_cross_entropy, x, head, labels, use_reentrant=False)


def next_tokens(labels: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Shift labels by one token: position t is to predict t + 1, and the last has no label."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def fused_cross_entropy(
    exits: Sequence[Float[Tensor, "rows hidden"]],
    weight: Float[Tensor, "vocab hidden"],
    labels: Int[Tensor, " rows"],
    row_weights: Float[Tensor, "exits rows"],
    chunk_bytes: int = CHUNK_BYTES,
    passes: Passes = differentiate,
) -> tuple[Float[Tensor, ""], Float[Tensor, "exits rows"]]:
    """Return the weighted sum of all exits' cross-entropies, and the cross-entropies themselves without a gradient.

    `exits` are what the head sees at each. The gradient of a weighted sum is known as soon as its logits are, so it is
    computed chunk by chunk in the forward pass and the logits are dropped: three matrix products, none of them twice.
    Under autocast they run in its precision.

    Raises `InputError` for float16, in which the gradient of a mean over tokens underflows.
    """
    precision = head_precision(weight)
    if precision == torch.float16:
        raise InputError("the fused loss has no float16, its gradients underflow: use bfloat16 or float32.")
    return _FusedCrossEntropy.apply(weight, labels, row_weights, precision, chunk_bytes, passes, *exits)


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        labels: Tensor,
        row_weights: Tensor,
        precision: torch.dtype,
        budget: int,
        passes: Passes,
        *exits: Tensor,
    ) -> tuple[Tensor, Tensor]:
        head, wide = weight.to(precision), widened(precision)
        kept = labels != IGNORED
        targets = labels.where(kept, 0)
        weights = (row_weights * kept).to(wide)
        losses = torch.empty_like(weights)
        grads = [torch.empty_like(x, dtype=precision) for x in exits]
        grad_weight = torch.zeros_like(weight, dtype=wide)
        chunks = _chunks(len(labels), head, budget)
        # allocated once: fresh memory for every chunk costs more than what is computed in it
        logits_ = torch.empty(longest(chunks), len(head), dtype=head.dtype, device=head.device)
        product = torch.empty_like(head)
        for k, chunk in itertools.product(range(len(exits)), chunks):
            rows, logits = exits[k][chunk].to(precision), logits_[: chunk.stop - chunk.start]
            torch.mm(rows, head.T, out=logits)
            losses[k, chunk] = passes(logits, targets[chunk])
            # rows are weighted on the thin side of the products, so that no pass over the logits is spent on it
            weight_of_row = weights[k, chunk, None]
            torch.mm(logits, head, out=grads[k][chunk])
            grads[k][chunk] *= weight_of_row
            torch.mm(logits.T, (rows * weight_of_row).to(precision), out=product)
            for block in blocks_of(grad_weight):
                grad_weight[block] += product[block]
        ctx.save_for_backward(grad_weight, *grads)
        ctx.dtypes = weight.dtype, *(x.dtype for x in exits)
        losses *= kept
        ctx.mark_non_differentiable(losses)
        return (losses * row_weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_weight, *grads = (
            (grad * grad_sum).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return grad_weight, None, None, None, None, None, *grads


def logit_cross_entropy(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Return the cross-entropy of every row in nats, in float32 or better; 0 where the target is ignored."""
    return F.cross_entropy(logits.to(widened(logits.dtype)), targets, ignore_index=IGNORED, reduction="none")


def logit_losses(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the cross-entropy of every token in nats, in float32 or better; 0 where the label is ignored.

    For logits that somebody else made: without gradients few of them are held in float32 at once.
    """
    return _cross_entropy_of(logits.flatten(0, 1), labels.flatten()).view(labels.shape)


def _cross_entropy_of(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Return the cross-entropy of every row; without gradients few rows are in float32 or better at once."""
    if torch.is_grad_enabled():
        return logit_cross_entropy(logits, targets)
    losses = torch.empty(len(logits), dtype=widened(logits.dtype), device=logits.device)
    for block in blocks_of(logits):
        losses[block] = logit_cross_entropy(logits[block], targets[block])
    return losses


def _chunks(rows: int, head: Tensor, budget: int) -> list[slice]:
    """Split rows into the fewest equal chunks whose logits fit in the budget."""
    return equal_parts(rows, budget // (len(head) * head.element_size()))
