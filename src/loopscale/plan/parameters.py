"""Parameters of a model by part, how often a token meets each, and what an optimizer keeps of them."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.train.optimizers import matrices_of


@final
@dataclass(frozen=True)
class Parameters:
    """Numbers of weights; a tied head's are the embeddings'. `loop` is met once per loop, the rest once or per exit.

    optimizer_numbers: what the optimizer keeps beside the weights. gathered: what a sharded run has
    whole at once, all weights until their backward pass, and the gradients of the loop.
    """

    embeddings: int
    prelude: int
    loop: int
    coda: int
    head: int
    total: int
    optimizer_numbers: int
    gathered: int


def count_parameters(config: LoopedConfig, optimizer: str = "adamw") -> Parameters:
    """Return the parameters of a configuration's model. Nothing is allocated."""
    with torch.device("meta"):
        model = LoopedForCausalLM(config)
    stack = model.model
    total = _of(model)
    parts = {
        "prelude": _of(stack.prelude, stack.prelude_norm),
        "loop": _of(stack.layers, stack.injection, stack.relaxation, stack.recurrence),
        "coda": _of(stack.coda, model.coda_input),
        "embeddings": _of(stack.embed_tokens, *([] if stack.embed_positions is None else [stack.embed_positions])),
    }
    matrices = matrices_of(model) if optimizer == "muon" else set()
    numbers = sum((1 if name in matrices else 2) * weight.numel() for name, weight in model.named_parameters())
    return Parameters(
        **parts,
        head=total - sum(parts.values()),
        total=total,
        optimizer_numbers=numbers,
        gathered=total + parts["loop"],
    )


def _of(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())
