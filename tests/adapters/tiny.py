"""Tiny random models of transformers' own looped classes."""

from typing import Any

import torch
from transformers import HrmTextConfig, HrmTextForCausalLM, Inkling2LoopForCausalLM, Inkling2LoopTextConfig

VOCAB = 37
HRM: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "H_cycles": 3,
    "L_cycles": 2,
}
INKLING: dict[str, Any] = {
    "vocab_size": VOCAB + 3,
    "unpadded_vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    **dict.fromkeys(("num_attention_heads", "swa_num_attention_heads"), 2),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 1),
    **dict.fromkeys(("head_dim", "swa_head_dim"), 8),
    "sliding_window_size": 4,
    "d_rel": 4,
    "rel_extent": 6,
    "n_layers_per_attn_res_block": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 3,
    "num_experts_per_tok": 2,
    "loop_layer_index_start": 1,
    "loop_layer_index_end": 3,
    "loop_num_passes": 3,
    "loop_gate_rank": 4,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "layer_types": ["hybrid_sliding", "hybrid"] * 2,
}
# blocks of two layers: boundaries and layers between them
INKLING_BLOCKS: dict[str, Any] = {
    "num_hidden_layers": 8,
    "n_layers_per_attn_res_block": 2,
    "loop_layer_index_start": 2,
    "loop_layer_index_end": 6,
    "layer_types": ["hybrid_sliding", "hybrid"] * 4,
}


def tiny_hrm(**overrides: Any) -> HrmTextForCausalLM:
    """A random HRM-Text whose blocks say something."""
    return _shaken(HrmTextForCausalLM(HrmTextConfig(**{**HRM, **overrides})))


def tiny_inkling(**overrides: Any) -> Inkling2LoopForCausalLM:
    """A random Inkling-2 whose messages say something: their queries and gates start at zero or near it."""
    return _shaken(Inkling2LoopForCausalLM(Inkling2LoopTextConfig(**{**INKLING, **overrides})))


def _shaken(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 or not weight.any():
                weight += 0.2 * torch.randn_like(weight)
    return model.eval()
