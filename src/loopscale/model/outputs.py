"""What a looped forward takes beside its signature, and what it returns."""

from dataclasses import dataclass
from typing import TypedDict, no_type_check

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from loopscale.model.recorder import Selection


class Keywords(TypedDict, total=False):
    """Keywords of a forward that transformers takes everywhere, and labels that are already the next tokens."""

    output_hidden_states: Selection | None
    output_attentions: bool | None
    shift_labels: torch.Tensor | None


@dataclass
@no_type_check  # accelerate builds it from one mapping
class LoopedOutput(CausalLMOutputWithPast):
    """Outputs of `LoopedForCausalLM`, beside those of any causal language model of transformers.

    Rows come first and never mix, so that outputs of several batches can be put one after another.

    logits: of the last loop that ran, (batch, kept, vocab); None where only the loss was asked for.
    loop_losses: (batch, K) cross-entropy of every exit in nats per token, detached; NaN where an exit was not computed.
    loop_norms: (batch, K) mean L2 norm of the state of real tokens after every loop, detached.
    states: K tensors (batch, seq, hidden), on request.
    exit_probabilities: (batch, seq, K) distribution over exits of the exit gate, where there is one.
    hidden_states: on request, the embedding and then the state after every layer of every loop, (batch, seq, hidden)
        each, num_hidden_layers + 1 in all; the last one as the head sees it, as everywhere in transformers.
    attentions: on request, one map (batch, heads, seq, seen) per layer and loop; attention must be eager.
    """

    loop_losses: torch.Tensor | None = None
    loop_norms: torch.Tensor | None = None
    states: tuple[torch.Tensor, ...] | None = None
    exit_probabilities: torch.Tensor | None = None


def kept(z: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the states whose logits are asked for: the last so many (0: all), or those at the given indices."""
    return z[:, -logits_to_keep:] if isinstance(logits_to_keep, int) else z[:, logits_to_keep]
