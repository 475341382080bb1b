"""Checkpoints of the released code of arXiv 2606.24898, as native models.

Its state is what the stack returns, before any inter-loop norm or damping, as ours: all of the paper's norms are
measured there. Nothing is closed by architecture but scale under `inter_loop_norm`; what a readout hides is what ours
of that name hides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from loopscale.convert.build import Weights, build_config, build_model, require_sizes
from loopscale.convert.files.prefixes import plain_names
from loopscale.convert.files.weights import read_torch
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig, LoopedForCausalLM

# their layer's keys -> ours; `attn.qkv.weight` is three of ours stacked
LAYER_KEYS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn.out_proj.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.w1.weight": "mlp.gate_proj.weight",
    "ffn.w3.weight": "mlp.up_proj.weight",
    "ffn.w2.weight": "mlp.down_proj.weight",
}
OPTIONS = {
    "rms_norm_eps": "rms_norm_eps",
    "tie_weights": "tie_word_embeddings",
    "norm_penalty_weight": "norm_penalty_coef",
    "entropy_weight": "entropy_coef",
}
# what that code's model always has, used by the variant or not
UNUSED = {"lm_head.weight", "decode_norm.weight", "loop_norm.weight", "raw_alpha", "exit_gate.weight", "exit_gate.bias"}
SOURCE = "the readout-blind-spot checkpoint"
SIZES = ("d_model", "num_heads", "num_layers", "ff_multiplier", "num_loops")
SUPERVISIONS = {"per-step": "per_loop", "terminal": "terminal", "adaptive": "exit_gate"}
NORM_TYPES = ("block_norm_type", "loop_norm_type", "decode_norm_type")
MODEL_FLAGS = {
    *(*SIZES, "dropout", "tie_weights"),
    *("use_decode_norm", "decode_norm_final_only", "inter_loop_norm", "use_spectral_damping", *NORM_TYPES),
}


def is_paper_checkpoint(content: Any) -> bool:
    """Return whether what a file held is a checkpoint of the released training code."""
    return isinstance(content, dict) and {"model_state", "config"} <= content.keys()


def load_readout_blind_spot(path: str | Path) -> LoopedForCausalLM:
    """Return the model of a `.pt` file that the released training code wrote, in eval mode.

    Only tensors and plain values are unpickled. Raises `InputError` where there is no such file or no such content.
    """
    content = read_torch(path)
    if not is_paper_checkpoint(content):
        raise InputError(
            f"'{path}' is not a checkpoint of the readout-blind-spot code: no model_state and config in it."
        )
    return model_of_checkpoint(content, path)


def model_of_checkpoint(content: Mapping[str, Any], path: str | Path) -> LoopedForCausalLM:
    """Return the model of such a checkpoint's content. Raises `InputError`, naming the file, where it does not fit."""
    try:
        return from_readout_blind_spot(content["model_state"], flags_of(content["config"]))
    except InputError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # whatever lies in the file
        raise InputError(f"'{path}' is not a checkpoint of the readout-blind-spot code: {error}.") from error


def flags_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a checkpoint's config, nested as that code writes it or flat, as one flat mapping.

    Raises `InputError` for a flag of its model that this library does not know.
    """
    if "model" not in config:
        return dict(config)
    model, supervision = config["model"], config.get("supervision") or {}
    for name in sorted(model.keys() - MODEL_FLAGS):
        raise unknown("model flag of the readout-blind-spot code", name, MODEL_FLAGS)
    flags = {"inter_loop_norm": True, "entropy_weight": 0.1, **model, **supervision}  # that code's own defaults
    if "mode" in supervision:
        flags["supervision"] = flags.pop("mode")
    return flags


def from_readout_blind_spot(weights: Weights, meta: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the model of that code's `weights`, in eval mode; it shares their memory.

    `meta` holds its sizes (`d_model`, `num_heads`, `num_layers`, `ff_multiplier`, `num_loops`; the vocabulary and the
    positions are read off the weights) with one variant's flags merged in (`use_decode_norm`, `decode_norm_final_only`,
    `inter_loop_norm`, `use_spectral_damping`, `tie_weights`, `supervision`, `norm_penalty_weight`, `entropy_weight`).

    Raises `InputError` where a size or a weight is missing, or a flag has no counterpart here.
    """
    weights = plain_names(weights, "token_embedding.weight", SOURCE)
    try:
        config = config_of(weights, meta)
        state = state_dict_of(weights, config)
    except KeyError as missing:
        raise InputError(f"not a checkpoint of the readout-blind-spot code: {missing} is missing.") from missing
    return build_model(config, state, SOURCE)


def config_of(weights: Weights, meta: Mapping[str, Any]) -> LoopedConfig:
    """Translate that code's sizes and flags."""
    require_sizes(meta, SIZES, SOURCE)
    for problem in unsupported(meta):
        raise InputError(
            f"this checkpoint of the readout-blind-spot code has {problem}, which has no counterpart here."
        )
    readout = "raw"
    if meta.get("use_decode_norm", True):
        readout = "final_rmsnorm" if meta.get("decode_norm_final_only") else "rmsnorm"
    recurrence = "residual"
    if meta.get("inter_loop_norm"):
        recurrence = "rmsnorm"
    elif meta.get("use_spectral_damping"):
        recurrence = "damped"
    options = {ours: meta[theirs] for theirs, ours in OPTIONS.items() if theirs in meta}
    if "supervision" in meta:
        options["supervision"] = SUPERVISIONS[meta["supervision"]]
    values = {
        "vocab_size": weights["token_embedding.weight"].shape[0],
        "max_position_embeddings": weights["position_embedding.weight"].shape[0],
        "hidden_size": meta["d_model"],
        "intermediate_size": meta["ff_multiplier"] * meta["d_model"],
        "num_stack_layers": meta["num_layers"],
        "num_attention_heads": meta["num_heads"],
        "num_loops": meta["num_loops"],
        "dropout": meta.get("dropout", 0.0),
        "readout": readout,
        "recurrence": recurrence,
    }
    return build_config({**values, **options}, SOURCE)


def unsupported(meta: Mapping[str, Any]) -> list[str]:
    """Return, in words, the flags that no model of ours can follow."""
    mode, looped_norm = meta.get("supervision"), bool(meta.get("inter_loop_norm"))
    damped = bool(meta.get("use_spectral_damping"))
    found = {f"{key} '{meta.get(key)}'": meta.get(key, "rmsnorm") != "rmsnorm" for key in NORM_TYPES} | {
        f"supervision mode '{mode}'": mode not in {None, *SUPERVISIONS},
        "both inter_loop_norm and use_spectral_damping": looped_norm and damped,
        "an exit gate that reads another state than the one carried on": mode == "adaptive" and (looped_norm or damped),
        "a scale_anchor_weight": bool(meta.get("scale_anchor_weight")),
    }
    return [words for words, is_there in found.items() if is_there]


def state_dict_of(weights: Weights, config: LoopedConfig) -> dict[str, Shaped[Tensor, "..."]]:
    """Rename that code's weights, splitting the fused q, k, v; weights that the variant does not use are left out."""
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    names = {
        "model.embed_tokens.weight": "token_embedding.weight",
        "model.embed_positions.weight": "position_embedding.weight",
    }
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = "lm_head.weight"
    if config.readout != "raw":
        names["readout_norm.norm.weight"] = "decode_norm.weight"
    if config.recurrence == "rmsnorm":
        names["model.recurrence.norm.weight"] = "loop_norm.weight"
    if config.recurrence == "damped":
        names["model.recurrence.logit"] = "raw_alpha"
    if config.exit_gate:
        names |= {f"exit_gate.{part}": f"exit_gate.{part}" for part in ("weight", "bias")}
    for i in range(config.num_stack_layers):
        names |= {f"model.layers.{i}.{ours}": f"layers.{i}.{theirs}" for theirs, ours in LAYER_KEYS.items()}
    state = {ours: tensors[theirs] for ours, theirs in names.items()}
    for i in range(config.num_stack_layers):
        qkv = tensors[f"layers.{i}.attn.qkv.weight"].chunk(3)
        for name, weight in zip("qkv", qkv, strict=True):
            state[f"model.layers.{i}.self_attn.{name}_proj.weight"] = weight
    used = {*names.values(), *(f"layers.{i}.attn.qkv.weight" for i in range(config.num_stack_layers))}
    if surplus := sorted(tensors.keys() - used - UNUSED):
        raise InputError(
            f"{SOURCE}: {len(surplus)} weights have no place in the model of its config, among them {surplus[0]}."
        )
    return state
