"""Attention of transformers, whatever its implementation: masks, rotary positions, the call itself."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

AttentionMask = Tensor | BlockMask | None  # in the form the attention implementation wants; None: plain causal
RotaryEmbedding = modeling_llama.LlamaRotaryEmbedding
rotate = modeling_llama.apply_rotary_pos_emb
Heads = Float[Tensor, "batch heads seq head_size"]
SeenHeads = Float[Tensor, "batch key_heads seen head_size"]


def attention_implementation(config: PreTrainedConfig) -> str:
    """Return the name of the attention that a model runs: eager, sdpa, flash_attention_2, flex_attention, ..."""
    return config._attn_implementation


def attend(
    module: nn.Module, q: Heads, k: SeenHeads, v: SeenHeads, mask: AttentionMask, scaling: float
) -> tuple[Tensor, Tensor | None]:
    """Return attention's output, (batch, seq, heads, head size), by the implementation that `module.config` names.

    Beside it the attention map, (batch, heads, seq, seen), from eager attention alone.
    """
    name, eager = attention_implementation(module.config), modeling_llama.eager_attention_forward
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    return function(module, q, k, v, mask, dropout=0.0, scaling=scaling)


def causal_mask(
    config: PreTrainedConfig,
    h: Float[Tensor, "batch seq hidden"],
    attention_mask: Tensor | None,
    cache: Cache | None,
    position_ids: Tensor | None,
    slot: int,
    sliding: bool = False,
) -> AttentionMask:
    """Return the mask for the attention implementation, after what the cache has seen at `slot`."""
    # the cache by position: its keyword changed its name; `position_ids` only if the caller has them: transformers
    # would look through them for packed sequences, which syncs
    create = create_sliding_window_causal_mask if sliding else create_causal_mask
    return create(config, h, attention_mask, cache, position_ids=position_ids, layer_idx=slot)


def additive_mask(allowed: Bool[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Return what a token may see as eager attention wants it: 0, or the least number there is."""
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~allowed, torch.finfo(dtype).min)
