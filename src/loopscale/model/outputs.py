"""Outputs of a looped forward, what it takes beside its signature, and the recorder of its hidden states.

States and maps are collected between the layers: hooks of transformers cannot be traced inside compiled layers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, final, no_type_check

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from loopscale.hf import attention_implementation, warn_once
from loopscale.stepping import State

Selection = bool | int | Iterable[int]  # of hidden states: all, none, or those at these indices


@final
class Recorder:
    """Collects until it is taken; a pass that is run again for its gradient adds nothing.

    `hidden_states` and `attentions` say what is asked for, `length` how many hidden states there will be. Hidden states
    that a selection leaves out are None, so that the others keep their index.
    """

    def __init__(self, hidden_states: Selection, attentions: bool, length: int) -> None:
        chosen = set(range(length))
        if not isinstance(hidden_states, bool):
            indices = [hidden_states] if isinstance(hidden_states, int) else list(hidden_states)
            chosen = {i % length for i in indices if -length <= i < length}
        self.chosen = chosen
        self.states: list[Tensor | None] | None = None if hidden_states is False else []
        self.maps: list[Tensor] | None = [] if attentions else None

    def begin(self, h: State) -> None:
        """Keep what the first layer receives."""
        self._keep(h)

    def add(self, h: State, attention: Tensor | None) -> None:
        """Keep what a layer made, and where its attention looked if that is known."""
        self._keep(h)
        if self.maps is not None and attention is not None:
            self.maps.append(attention)

    def _keep(self, h: State) -> None:
        if self.states is not None:
            self.states.append(h if len(self.states) in self.chosen else None)

    def take(self, seen: State) -> dict[str, tuple[Any, ...] | None]:
        """Return both as fields of an output, and stop; the last hidden state is the one that the head has `seen`."""
        states, maps = self.states, self.maps
        self.states = self.maps = None
        if states and states[-1] is not None:
            states[-1] = seen
        return {
            "hidden_states": None if states is None else tuple(states),
            "attentions": None if maps is None else tuple(maps),
        }


def recorder_of(config: PreTrainedConfig, options: Mapping[str, Any], length: int) -> Recorder | None:
    """Return what collects the outputs that a call's `options` or else the configuration ask for; None for nothing."""
    hidden_states, attentions = (
        config_says if options.get(name) is None else options[name]
        for name, config_says in (
            ("output_hidden_states", config.output_hidden_states),
            ("output_attentions", config.output_attentions),
        )
    )
    if hidden_states is False and not attentions:
        return None
    name = attention_implementation(config)
    if attentions and name != "eager":
        warn_once(f"attention by '{name}' has no maps for output_attentions: load with attn_implementation='eager'.")
    return Recorder(hidden_states, bool(attentions), length)


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
