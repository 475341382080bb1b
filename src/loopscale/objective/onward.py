"""One more loop of a call, as a penalty of the step reads it: in operations that can be differentiated twice.

The kernels that training runs (fused attention, compiled layers) have no second derivative, and layers that are made
again in the backward pass would be made by other kernels there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscale.errors import InputError
from loopscale.hf import attention_implementation
from loopscale.stepping import Context, State


@final
class OneMoreLoop:
    """What the carry and the step make of the state of loop k, which received `received`, a constant.

    `drawn` says whether random moves are drawn anew, as in training, or are the same in every call.
    """

    def __init__(self, model: Any, context: Context, received: State, k: int) -> None:
        self.model, self.k, self.received = model, k, received.detach()
        self.context = replace(context, cache=None, recorder=None)
        self.drawn = model.training
        self.cache = context.cache

    def __call__(self, z: State) -> State:
        """Return the state of loop k + 1. Raises `InputError` for tokens after a cache that holds others."""
        if self.cache is not None and self.cache.get_seq_length() > self.received.shape[1]:
            raise InputError("a penalty of the step has no loss of tokens that follow a cache: give the whole text.")
        with _twice_differentiable(self.model):
            return self.model.step(self.model.carry(z, self.k, self.context, self.received), self.k + 1, self.context)


@contextmanager
def _twice_differentiable(model: Any) -> Iterator[None]:
    """Run what is differentiated twice; raises `InputError` for attention that cannot be."""
    name = attention_implementation(model.config)
    if name not in ("sdpa", "eager"):
        raise InputError(
            f"attention implementation '{name}' cannot be differentiated twice, as a penalty of the step is: load the "
            "model with attn_implementation='sdpa'."
        )
    recomputed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in recomputed:
        module.gradient_checkpointing = False
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in recomputed:
            module.gradient_checkpointing = True
