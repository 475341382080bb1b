"""One training step without its numbers: what it keeps, what it has alive at its peak, and what it computes.

torch's fake tensors have shapes and dtypes alone, so that a step of any size runs in seconds on any machine, through
the code that trains: whatever part, penalty or supervision a configuration names is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import nn

from loopscale.hf import kernels_of
from loopscale.hf.tracing import FakeTensorMode, fused_rms_norm
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.plan.ledger import Ledger


@final
@dataclass(frozen=True)
class StepCost:
    """What one micro-batch takes beside weights and the optimizer's state.

    kept: bytes that wait for the backward pass when it begins. peak: bytes alive at once in the whole step, gradients
    included. flops: floating-point operations of forward and backward, as torch's counter has them.
    """

    batch: int
    sequence: int
    kept: int
    peak: int
    flops: int


def step_cost(
    config: LoopedConfig,
    batch: int,
    sequence: int,
    *,
    bf16: bool = True,
    gpu: bool = True,
    checkpoint_loops: bool = False,
    depth: Mapping[str, int] | None = None,
    accumulated: bool = False,
) -> StepCost:
    """Return the cost of one micro-batch of `batch` windows. Nothing of its size is allocated.

    Args:
        config: of the model.
        batch: windows of the micro-batch.
        sequence: tokens of each.
        bf16: products in bf16 (autocast), else in float32.
        gpu: with a GPU's kernels for attention, dropout and norms, which keep less than a CPU's.
        checkpoint_loops: recompute each loop in the backward pass.
        depth: what the forward is asked for beside, such as `num_loops` and `gradient_loops`.
        accumulated: gradients of a micro-batch before it are there from the start.
    """
    with FakeTensorMode(), kernels_of("cuda" if gpu else "cpu"):
        model = LoopedForCausalLM(config).train()
        if gpu:
            _keep_as_a_gpu(model)
        model.checkpoint_loops = checkpoint_loops
        ids = torch.zeros((batch, sequence), dtype=torch.long)

        def forward() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return model(ids, shift_labels=ids, supervised_exits_only=True, **(depth or {})).loss

        with Ledger() as ledger:
            if accumulated:
                for weight in model.parameters():
                    weight.grad = torch.zeros_like(weight)
            loss = forward()
            kept = ledger.live
            loss.backward()
    return StepCost(batch, sequence, kept, ledger.peak, ledger.flops)


def _keep_as_a_gpu(model: nn.Module) -> None:
    """Let modules keep for their gradient what a GPU's kernels keep.

    Dropout: a mask of one byte, not one in the state's precision. RMSNorm: no more than its input.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = partial(_dropout, module.p)  # type: ignore[method-assign]
        elif isinstance(module, nn.RMSNorm):
            module.forward = partial(fused_rms_norm, module)  # type: ignore[method-assign]


def _dropout(p: float, x: torch.Tensor) -> torch.Tensor:
    return torch.native_dropout(x, p, True)[0] if p else x
