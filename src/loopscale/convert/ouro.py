"""Ouro (arXiv 2510.25741): its checkpoints as native models, without its remote code, and back.

An Ouro is a sandwich-norm stack with RoPE whose final norm is applied after every loop: the head, the exit gate and the
next loop all read norm(z). The state z is what the stack returns, before that norm, so its scale is measured there. The
inter-loop norm takes scale out of the loop by architecture: what the next loop receives has the scale of the norm's
learned weight. An audit can find blind spots among directions, never in scale.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from loopscale.convert.build import Weights, build_config, build_model, require_names, require_sizes
from loopscale.convert.expressible import differing_fields, require_placed, require_same, rope_beyond
from loopscale.convert.files.prefixes import plain_names
from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM

# config keys: theirs -> ours; a missing one is an error
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_stack_layers",
    "num_attention_heads": "num_attention_heads",
    "total_ut_steps": "num_loops",
    "max_position_embeddings": "max_position_embeddings",
}
# and those that have a default
OPTIONS = {
    "num_key_value_heads": "num_key_value_heads",
    "rms_norm_eps": "rms_norm_eps",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_word_embeddings",
    "early_exit_threshold": "exit_threshold",
    "pad_token_id": "pad_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}
# what every Ouro is, in our words, where that is not the default
ARCHITECTURE: Mapping[str, Any] = {
    "position_embedding": "rope",
    "norm_placement": "sandwich",
    "recurrence": "rmsnorm",
    "readout": "rmsnorm",
    "share_loop_norm": True,
    "exit_gate": True,
}
JUDGED = {"rope_parameters", "head_dim"}  # fields with a rule of their own in `to_ouro`
ROPE_THETA = 1e6
SOURCE = "the Ouro checkpoint"

MODEL_KEYS = {
    "model.embed_tokens.weight": "model.embed_tokens.weight",
    "model.norm.weight": "readout_norm.norm.weight",
    "model.early_exit_gate.weight": "exit_gate.weight",
    "model.early_exit_gate.bias": "exit_gate.bias",
    "lm_head.weight": "lm_head.weight",
}
LAYER_KEYS = {
    "input_layernorm.weight": "input_layernorm.weight",
    "input_layernorm_2.weight": "attention_output_norm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "post_attention_layernorm_2.weight": "mlp_output_norm.weight",
    **{f"self_attn.{name}_proj.weight": f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"mlp.{name}_proj.weight": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}


def from_ouro(weights: Weights, config: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the native model of an Ouro's state dict and config, in eval mode and the weights' precision.

    Raises `InputError` where a size or a weight is missing or does not fit, and for options this library cannot run.
    """
    native = config_of(config)
    keys = key_map(native)
    weights = plain_names(weights, "model.embed_tokens.weight", SOURCE)
    require_names(weights, keys, ("lm_head.weight",), SOURCE)  # where it is tied
    state = {ours: torch.as_tensor(weights[theirs]) for theirs, ours in keys.items()}
    return build_model(native, state, SOURCE)


def to_ouro(model: LoopedForCausalLM) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Return the state dict and config under Ouro's names.

    Both forms are run on a few tokens. Raises `InputError`, naming what differs, for a model whose architecture is not
    Ouro's.
    """
    config = model.config
    different = differing_fields(config, ARCHITECTURE, {*SIZES.values(), *OPTIONS.values(), *JUDGED})
    different += rope_beyond(config)
    assert config.head_dim is not None  # the config fills it
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        different.append(f"head_dim={config.head_dim}")
    if different:
        raise InputError(f"this model cannot be written as an Ouro, which has no {', no '.join(different)}.")
    state = model.state_dict()
    require_placed(state, key_map(config).values(), (), "Ouro")
    weights = {theirs: state[ours].contiguous() for theirs, ours in key_map(config).items()}
    written = {
        "architectures": ["OuroForCausalLM"],
        "model_type": "ouro",
        **{theirs: getattr(config, ours) for theirs, ours in {**SIZES, **OPTIONS}.items()},
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_theta": (config.rope_parameters or {})["rope_theta"],
        "rope_scaling": None,
        "use_sliding_window": False,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    require_same(model, from_ouro(weights, written), "Ouro")
    return weights, written


def config_of(ouro: Mapping[str, Any]) -> LoopedConfig:
    """Translate an Ouro's config. Supervision is `exit_gate`: expected cross-entropy under the gate."""
    require_sizes(ouro, SIZES, SOURCE)
    for problem in unsupported(ouro):
        raise InputError(f"this Ouro has {problem}, which this library cannot run.")
    theta = ouro.get("rope_theta") or _section(ouro, "rope_parameters").get("rope_theta") or ROPE_THETA
    if not isinstance(theta, int | float) or theta <= 0:
        raise InputError(f"{SOURCE}: rope_theta is {theta!r} in its config: it must be a positive number.")
    values = {ours: ouro[theirs] for theirs, ours in SIZES.items()}
    values |= {ours: ouro[theirs] for theirs, ours in OPTIONS.items() if theirs in ouro}
    values |= {**ARCHITECTURE, "supervision": "exit_gate", "dropout": 0.0, "init": "normal"}
    return build_config({**values, "rope_parameters": {"rope_type": "default", "rope_theta": float(theta)}}, SOURCE)


def unsupported(ouro: Mapping[str, Any]) -> list[str]:
    """Return, in words, the options of an Ouro's config that the native model does not have."""
    head_dim = ouro["hidden_size"] // ouro["num_attention_heads"]
    kinds = ouro.get("layer_types") or []
    layer_types = set(map(str, kinds if isinstance(kinds, list) else [kinds])) - {"full_attention"}
    rope = _section(ouro, "rope_scaling") or _section(ouro, "rope_parameters")
    found = {
        f"hidden_act {ouro.get('hidden_act')!r}": ouro.get("hidden_act", "silu") != "silu",
        "scaled RoPE": rope.get("rope_type", rope.get("type", "default")) != "default",
        "sliding-window attention": ouro.get("use_sliding_window", False),
        f"layers of type {', '.join(sorted(layer_types))}": bool(layer_types),
        f"head_dim {ouro.get('head_dim')}": (ouro.get("head_dim") or head_dim) != head_dim,
        "attention biases": ouro.get("attention_bias", False),
    }
    return [words for words, is_there in found.items() if is_there]


def _section(ouro: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of the config, empty where it is absent or null."""
    section = ouro.get(name) or {}
    if not isinstance(section, Mapping):
        raise InputError(f"{SOURCE}: {name} is {section!r} in its config: it must be a mapping.")
    return section


def key_map(config: LoopedConfig) -> dict[str, str]:
    """Return their weight names -> ours, for a model of this size."""
    keys = {theirs: ours for theirs, ours in MODEL_KEYS.items() if theirs != "lm_head.weight"}
    if not config.tie_word_embeddings:
        keys["lm_head.weight"] = MODEL_KEYS["lm_head.weight"]
    for i in range(config.num_stack_layers):
        keys |= {f"model.layers.{i}.{theirs}": f"model.layers.{i}.{ours}" for theirs, ours in LAYER_KEYS.items()}
    return keys
