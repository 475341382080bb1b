"""The released code of arXiv 2606.24898: its state dict and flags become a `LoopedForCausalLM`."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM

Weights = Mapping[str, ndarray | Tensor]

# their layer's keys -> ours; `attn.qkv.weight` is three of ours stacked
LAYER_KEYS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn.out_proj.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.w1.weight": "mlp.gate_proj.weight",
    "ffn.w3.weight": "mlp.up_proj.weight",
    "ffn.w2.weight": "mlp.down_proj.weight",
}


def from_readout_blind_spot(weights: Weights, meta: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the model of that code's `weights`, in eval mode.

    `meta` holds its sizes (`vocab_size`, `d_model`, `num_heads`, `num_layers`, `ff_multiplier`, `max_seq_len`,
    `num_loops`) with one variant's flags merged in (`use_decode_norm`, `decode_norm_final_only`, `inter_loop_norm`,
    `use_spectral_damping`).

    Raises `InputError` where a size or a weight is missing.
    """
    try:
        model = LoopedForCausalLM(config_of(meta))
        state = state_dict_of(weights, model.config)
    except KeyError as missing:
        raise InputError(f"not a checkpoint of the readout-blind-spot code: {missing} is missing.") from missing
    model.load_state_dict(state)
    return model.eval()


def config_of(meta: Mapping[str, Any]) -> LoopedConfig:
    """Translate that code's sizes and flags."""
    readout = "raw"
    if meta.get("use_decode_norm", True):
        readout = "final_rmsnorm" if meta.get("decode_norm_final_only") else "rmsnorm"
    recurrence = "residual"
    if meta.get("inter_loop_norm"):
        recurrence = "rmsnorm"
    elif meta.get("use_spectral_damping"):
        recurrence = "damped"
    return LoopedConfig(
        vocab_size=meta["vocab_size"],
        hidden_size=meta["d_model"],
        intermediate_size=meta["ff_multiplier"] * meta["d_model"],
        num_stack_layers=meta["num_layers"],
        num_attention_heads=meta["num_heads"],
        num_loops=meta["num_loops"],
        max_position_embeddings=meta["max_seq_len"],
        rms_norm_eps=meta.get("rms_norm_eps", 1e-6),
        dropout=meta.get("dropout", 0.0),
        readout=readout,
        recurrence=recurrence,
    )


def state_dict_of(weights: Weights, config: LoopedConfig) -> dict[str, Float[Tensor, "..."]]:
    """Rename that code's weights, splitting the fused q, k, v; weights that the variant does not use are left out."""
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    state = {
        "model.embed_tokens.weight": tensors["token_embedding.weight"],
        "model.embed_positions.weight": tensors["position_embedding.weight"],
        "lm_head.weight": tensors["lm_head.weight"],
    }
    if config.readout != "raw":
        state["readout_norm.norm.weight"] = tensors["decode_norm.weight"]
    if config.recurrence == "rmsnorm":
        state["model.recurrence.norm.weight"] = tensors["loop_norm.weight"]
    if config.recurrence == "damped":
        state["model.recurrence.logit"] = tensors["raw_alpha"]
    for i in range(config.num_stack_layers):
        for theirs, ours in LAYER_KEYS.items():
            state[f"model.layers.{i}.{ours}"] = tensors[f"layers.{i}.{theirs}"]
        qkv = tensors[f"layers.{i}.attn.qkv.weight"].chunk(3)
        for name, weight in zip("qkv", qkv, strict=True):
            state[f"model.layers.{i}.self_attn.{name}_proj.weight"] = weight
    return state
