"""What a looped forward returns."""

from dataclasses import dataclass
from typing import no_type_check

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
@no_type_check  # accelerate builds it from one mapping
class LoopedOutput(CausalLMOutputWithPast):
    """Outputs of `LoopedForCausalLM`, beside those of any causal language model of transformers.

    logits: of the last loop that ran, (batch, kept, vocab); None where a loss was asked for in training mode.
    loop_losses: (K,) cross-entropy of every exit in nats per token, detached; NaN where an exit was not computed.
    loop_norms: (K,) mean L2 norm of the state after every loop, detached.
    states: K tensors (batch, seq, hidden), on request.
    exit_probabilities: (K, batch, seq) distribution over exits of the exit gate, where there is one.
    """

    loop_losses: torch.Tensor | None = None
    loop_norms: torch.Tensor | None = None
    states: tuple[torch.Tensor, ...] | None = None
    exit_probabilities: torch.Tensor | None = None
