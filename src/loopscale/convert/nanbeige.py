"""Nanbeige (arXiv 2607.22083): the looped architecture that llama.cpp, SGLang and MLX run, into ours and back.

A Nanbeige is a Llama whose layers are applied `num_loops` times. Its final norm is the readout's; between loops the
same norm is applied again (`skip_loop_final_norm` false: our shared inter-loop norm) or nothing is (true: our residual
recurrence). There is one depth, and nothing else: what a model has beyond that is refused by name.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from loopscale.convert.build import Weights, build_config, build_model, require_names, require_sizes
from loopscale.convert.expressible import differing_fields, kind, require_placed, require_same, rope_beyond
from loopscale.convert.files.prefixes import plain_names
from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.slots import check_loops

logger = logging.getLogger(__name__)


# config keys: theirs -> ours; a missing one is an error
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_stack_layers",
    "num_attention_heads": "num_attention_heads",
    "num_loops": "num_loops",
    "max_position_embeddings": "max_position_embeddings",
}
# and those that have a default
OPTIONS = {
    "num_key_value_heads": "num_key_value_heads",
    "rms_norm_eps": "rms_norm_eps",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_word_embeddings",
    "pad_token_id": "pad_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}
# what every Nanbeige is, in our words
ARCHITECTURE: Mapping[str, Any] = {
    "position_embedding": "rope",
    "block_norm": "rmsnorm",
    "readout": "rmsnorm",
    "recurrence": "residual",  # or "rmsnorm", with share_loop_norm
}
# fields with a rule of their own in `inexpressible`
JUDGED = {"residual", "norm_placement", "share_loop_norm", "rope_parameters", "exit_gate", "exit_threshold", "head_dim"}
# options of their config that are plain where they are absent, null, false, empty or 0
BEYOND = (
    *("rope_scaling", "attention_bias", "mlp_bias", "qk_layernorm", "loop_loss_weights", "loop_middle_layers"),
    *("loop_share_kv", "enable_double_loop_split", "enable_hyper_connection", "enable_mhc", "enable_h_res_identity"),
    *("enable_depth_attention", "emb_neighbor_num", "emb_split_num", "insert_ngram_layer_idx"),
    "ngram_insert_all_layers",
)
SOURCE = "the Nanbeige checkpoint"
LAYER_KEYS = (
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
)


def from_nanbeige(weights: Weights, config: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the native model of a Nanbeige's state dict and config, in eval mode and the weights' precision.

    Raises `InputError` where a size or a weight is missing or does not fit, and for options this library cannot run.
    """
    native = config_of(config)
    keys = key_map(native)
    weights = plain_names(weights, "model.embed_tokens.weight", SOURCE)
    require_names(weights, keys, ("lm_head.weight",), SOURCE)  # where it is tied
    return build_model(native, {ours: torch.as_tensor(weights[theirs]) for theirs, ours in keys.items()}, SOURCE)


def to_nanbeige(
    model: LoopedForCausalLM, num_loops: int | None = None
) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Return the state dict and config under Nanbeige's names, which hold one depth: the trained one by default.

    Both forms are run on a few tokens, so that a part nobody thought of is refused rather than lost. Raises
    `InputError`, naming what differs, for a model that a Nanbeige cannot express, and for one set to another depth than
    the trained one unless `num_loops` says that this is meant.
    """
    K = model.num_loops if num_loops is None else num_loops
    check_loops(K)
    config = model.config.at_depth(K)
    beyond = inexpressible(config)
    if num_loops is None and model.num_loops != model.trained_loops:
        beyond.append(f"second depth: num_loops is {model.num_loops}, trained_loops {model.trained_loops}")
    if beyond:
        raise InputError(
            f"this model cannot be written as a Nanbeige, which has no {', no '.join(beyond)}: train one that can be, "
            "for example with --preset laptop-rope."
        )
    state = model.state_dict()
    unused = ("exit_gate.", "model.recurrence.") if K == 1 else ("exit_gate.",)
    require_placed(state, key_map(config).values(), unused, "Nanbeige")
    weights = {theirs: state[ours].contiguous() for theirs, ours in key_map(config).items()}
    written = {
        "architectures": ["NanbeigeForCausalLM"],
        "model_type": "nanbeige",
        **{theirs: getattr(config, ours) for theirs, ours in {**SIZES, **OPTIONS}.items()},
        "skip_loop_final_norm": K == 1 or kind(config.recurrence) == "residual",
        "loop_loss_weights": [],  # some runtimes take the depth from their number
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_theta": float((config.rope_parameters or {})["rope_theta"]),
        "rope_scaling": None,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    require_same(model, from_nanbeige(weights, written), "Nanbeige")
    if config.exit_gate:
        logger.warning("the exit gate is left out: every token will take all %d loops", K)
    return weights, written


def inexpressible(config: LoopedConfig) -> list[str]:
    """Return, in words, what this model has and a Nanbeige lacks. A field nobody has placed counts at its default."""
    K = config.num_loops
    needs: dict[str, Any] = {**ARCHITECTURE, "residual_part": "pre"}
    judged = {*SIZES.values(), *OPTIONS.values(), *JUDGED}
    if K == config.trained_loops == 1 and config.readout == "final_rmsnorm":
        needs["readout"] = config.readout  # its only exit is the final one
    if K == 1 or (config.share_loop_norm and kind(config.recurrence) == "rmsnorm"):
        needs["recurrence"] = kind(config.recurrence)
    found = differing_fields(config, needs, judged)
    if "recurrence='rmsnorm'" in found:
        found.append("inter-loop norm of its own (share_loop_norm=False)")
    found += rope_beyond(config)
    if config.exit_gate and config.exit_threshold < 1:
        found.append(f"exit gate to stop by (exit_threshold={config.exit_threshold})")
    return found


def config_of(theirs: Mapping[str, Any]) -> LoopedConfig:
    """Translate a Nanbeige's config. Its loss saw the last exit alone."""
    require_sizes(theirs, SIZES, SOURCE)
    beyond = [f"{name}={theirs[name]!r}" for name in BEYOND if theirs.get(name)]
    head_dim = theirs.get("head_dim") or theirs["hidden_size"] // theirs["num_attention_heads"]
    values = {ours: theirs[name] for name, ours in SIZES.items()}
    values |= {ours: theirs[name] for name, ours in OPTIONS.items() if name in theirs}
    if head_dim * theirs["num_attention_heads"] != theirs["hidden_size"]:
        if "head_dim" in LoopedConfig.__annotations__:
            values["head_dim"] = head_dim
        else:
            beyond.append(f"head_dim={head_dim}")
    if theirs.get("hidden_act", "silu") != "silu":
        beyond.append(f"hidden_act={theirs['hidden_act']!r}")
    if beyond:
        raise InputError(f"this Nanbeige has {', '.join(beyond)}, which this library cannot run.")
    rope = theirs.get("rope_parameters")  # as transformers 5 writes it
    told = rope if isinstance(rope, Mapping) else {}
    if told.get("rope_type", "default") != "default":
        raise InputError(f"this Nanbeige has rope_parameters={rope!r}, which this library cannot run.")
    theta = theirs.get("rope_theta", told.get("rope_theta"))
    if not isinstance(theta, int | float) or theta <= 0:
        raise InputError(f"{SOURCE}: rope_theta is {theta!r} in its config: it must be a positive number.")
    shared = not theirs.get("skip_loop_final_norm", False)
    values |= {
        **ARCHITECTURE,
        "recurrence": "rmsnorm" if shared else "residual",
        "share_loop_norm": shared,
        "supervision": "terminal",
        "dropout": 0.0,
        "init": "normal",
        "rope_parameters": {"rope_type": "default", "rope_theta": float(theta)},
    }
    return build_config(values, SOURCE)


def key_map(config: LoopedConfig) -> dict[str, str]:
    """Return their weight names -> ours, for a model of this size."""
    keys = {"model.embed_tokens.weight": "model.embed_tokens.weight", "model.norm.weight": "readout_norm.norm.weight"}
    if not config.tie_word_embeddings:
        keys["lm_head.weight"] = "lm_head.weight"
    layers = (f"model.layers.{i}." for i in range(config.num_stack_layers))
    return keys | {prefix + name: prefix + name for prefix in layers for name in LAYER_KEYS}
