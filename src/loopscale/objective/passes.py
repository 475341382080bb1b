"""Passes of the head over a chunk of logits: the cross-entropy of its rows, and the logits' gradient in their place.

Eagerly, pass after pass goes over blocks of rows that stay in a CPU's caches. Compiled, the passes are one or two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscale.hf import kernel_device
from loopscale.system.precision import widened

Passes = Callable[[Tensor, Tensor], Tensor]

CPU_BLOCK_BYTES = 4 * 2**20
BLOCK_BYTES = 64 * 2**20  # elsewhere: bounds the memory of a block in float32 or better


def differentiate(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Return the cross-entropy of every row; overwrite its logits by its gradient by them, softmax - one-hot."""
    blocks, wide = blocks_of(logits), widened(logits.dtype)
    wide_, p_ = torch.empty(2, longest(blocks), logits.shape[1], dtype=wide, device=logits.device)
    losses = torch.empty(len(logits), dtype=wide, device=logits.device)
    for rows in blocks:
        block, target, r = logits[rows], targets[rows, None], rows.stop - rows.start
        p = torch.softmax(wide_[:r].copy_(block), -1, out=p_[:r])
        log_sum = block.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()  # the largest p is at least 1 / V
        losses[rows] = (log_sum - block.gather(1, target)).squeeze(1)
        block.copy_(p.scatter_add_(1, target, -torch.ones_like(log_sum)))
    return losses


def compiled_passes(**options: Any) -> Passes:
    """Return `differentiate` for torch.compile, which fuses its passes; `options` are torch.compile's."""
    return torch.compile(differentiate_at_once, dynamic=True, fullgraph=True, **options)


def differentiate_at_once(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Do the same as one expression: for a compiler, slow and large without."""
    x = logits.to(widened(logits.dtype))
    log_sum = torch.logsumexp(x, -1, keepdim=True)
    losses = log_sum - x.gather(1, targets[:, None])
    one_hot = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    logits.copy_((x - log_sum).exp() - one_hot.to(x.dtype))
    return losses.squeeze(1)


def blocks_of(x: Float[Tensor, "rows width"]) -> list[slice]:
    """Split rows into blocks over which several passes are cheap."""
    budget = CPU_BLOCK_BYTES if kernel_device(x) == "cpu" else BLOCK_BYTES
    return equal_parts(len(x), budget // (x.shape[1] * widened(x.dtype).itemsize))


def equal_parts(rows: int, at_most: int) -> list[slice]:
    """Return the fewest slices of `rows` with at most so many in each, but one at least, nearly equal in size."""
    count = -(-rows // max(1, at_most))
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def longest(parts: Sequence[slice]) -> int:
    """Return the most rows that one of the parts has."""
    return max((part.stop - part.start for part in parts), default=0)
