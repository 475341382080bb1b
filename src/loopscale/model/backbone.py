"""The loop without its head, on transformers' base class: `embed`, `step` and `carry`.

Letters: B batch, T tokens, D hidden.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache

from loopscale.errors import InputError
from loopscale.hf import RotaryEmbedding, causal_mask
from loopscale.model.blocks import LoopedLayer, StepContext
from loopscale.model.config import LoopedConfig
from loopscale.model.recurrence import RECURRENCES, Damped
from loopscale.stepping import Positions, State, Tokens


class LoopedPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialising, as transformers does it."""

    config: LoopedConfig
    config_class = LoopedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("LoopedLayer",)
    _skip_keys_device_placement = ("cache", "past_key_values")
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Damped):
            init.constant_(module.logit, Damped.initial_logit)
        elif self.config.init == "normal" or not isinstance(module, nn.Linear | nn.Embedding):
            super()._init_weights(module)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        else:  # torch's own default: uniform within 1 / sqrt(fan in), the paper's; its norm growth depends on it
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)


class LoopedModel(LoopedPreTrainedModel):
    """The loop without its head: `embed`, `step` and `carry` of the four verbs."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.position_embedding == "learned"
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.rotary_emb = None if learned else RotaryEmbedding(config)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(LoopedLayer(config) for _ in range(config.num_stack_layers))
        self.recurrence = RECURRENCES[config.recurrence](config)
        self.post_init()

    def embed(self, input_ids: Tokens, position_ids: Positions | None = None) -> State:
        """Return token plus (learned) position embeddings."""
        return self.embed_inputs(self.embed_tokens(input_ids), position_ids)

    def embed_inputs(self, inputs_embeds: State, position_ids: Positions | None = None) -> State:
        """Add positions to token embeddings; `position_ids` default to 0, 1, ..."""
        if self.embed_positions is not None:
            room = self.config.max_position_embeddings
            if inputs_embeds.shape[1] > room:
                raise InputError(
                    f"{inputs_embeds.shape[1]} tokens are more than the {room} positions this model has "
                    "(max_position_embeddings): shorten the input."
                )
            positions = self.positions(inputs_embeds) if position_ids is None else position_ids
            inputs_embeds = inputs_embeds + self.embed_positions(positions)
        return self.dropout(inputs_embeds)

    def positions(self, h: State, cache: Cache | None = None, slot: int = 0) -> Positions:
        """Return 0, 1, ... after what the cache has seen at `slot`."""
        seen = 0 if cache is None else cache.get_seq_length(slot)
        return torch.arange(h.shape[1], device=h.device)[None] + seen

    def context(
        self,
        h: State,
        attention_mask: Tensor | None = None,
        position_ids: Positions | None = None,
        cache: Cache | None = None,
        slot: int = 0,
    ) -> StepContext:
        """Return what every loop of a call shares: mask, rotary embeddings, cache.

        `attention_mask` is transformers' (batch, seen + seq) mask of real tokens. `slot` is the cache slot whose
        length tells how many tokens came before.
        """
        mask = causal_mask(self.config, h, attention_mask, cache, position_ids, slot)
        if self.rotary_emb is None:
            return StepContext(mask, None, cache)
        positions = self.positions(h, cache, slot) if position_ids is None else position_ids
        return StepContext(mask, self.rotary_emb(h, positions), cache)

    def step(self, h: State, k: int, context: StepContext | None = None) -> State:
        """Apply the shared stack once. Without a `context`: plain causal attention from position 0."""
        if context is None:
            context = self.context(h)
        for i, layer in enumerate(self.layers):
            h, attention = layer(h, k * len(self.layers) + i, context)
            if context.recorder is not None:
                context.recorder.add(h, attention)
        return h

    def carry(self, z: State, k: int) -> State:
        """Return what loop k + 1 receives."""
        return self.recurrence(z)

    def forward(self, input_ids: Tokens, **kwargs: Any) -> Any:
        """Not a model of its own: states have no meaning without the readout that was trained with them."""
        raise InputError("LoopedModel has no forward: use LoopedForCausalLM (AutoModelForCausalLM).")
