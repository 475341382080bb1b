"""Huginn (`huginn_raven`, arXiv 2502.05171): its checkpoints as native models, without its remote code, and back.

A Huginn has a prelude, a core that one linear map feeds with state and input, and a coda that belongs to the readout:
head(norm(coda(norm(z)))), one norm twice. Its layers normalise the whole stream after every branch. Three things are
written otherwise and are the same: queries, keys and values are one matrix, with biases of queries and keys alone;
rotary pairs are neighbours; embeddings are scaled by the root of the width. What its own code draws before the first
loop (a truncated normal of scale 0.63) is zero here, as `init_scale=0.0` makes it there.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from loopscale.convert.build import Weights, build_config, build_model, require_names, require_sizes
from loopscale.convert.expressible import differing_fields, family_beyond, require_placed, require_same
from loopscale.convert.files.prefixes import plain_names
from loopscale.convert.interleaved import ANGLES, angles_of, require_angles, to_halves, to_neighbours
from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

# config keys: theirs -> ours; a missing one is an error
SIZES = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "n_layers_in_prelude": "num_prelude_layers",
    "n_layers_in_recurrent_block": "num_stack_layers",
    "n_layers_in_coda": "num_coda_layers",
    "mean_recurrence": "num_loops",
    "block_size": "max_position_embeddings",
}
FORMER = {"n_heads": "num_attention_heads", "n_embd": "hidden_size"}  # the other names that some of them use
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
# what every Huginn is, in our words
ARCHITECTURE: Mapping[str, Any] = {
    "position_embedding": "rope",
    "block_norm": "rmsnorm",
    "residual_part": "post_add",
    "injection": "linear",
    "recurrence": "residual",
    "readout": "rmsnorm",
    "coda_input": "readout",
}
# what they say of themselves, where they say it, and the only value that is followed
NEEDS: Mapping[str, tuple[Any, ...]] = {
    "bias": (False,),
    "injection_type": ("linear",),
    "block_class_name": ("SandwichBlock",),
    "norm_class_name": ("RMSNorm", "RMSNorm_llama"),
    "mlp_class_name": ("GatedMLP",),
    "nonlin_name": ("SiLU",),
    "test_time_noise": (0,),
}
# fields with a rule of their own in `inexpressible`, or in the keys
JUDGED = {
    *("residual", "norm_placement", "rope_parameters", "initial_state", "attention_bias", "num_key_value_heads"),
    *("head_dim", "tie_word_embeddings", "embedding_scale", "rms_norm_eps", "initializer_range"),
}
ROPE_BASE = 50_000.0
SOURCE = "the Huginn checkpoint"
GROUPS = {"prelude": "prelude", "core_block": "layers", "coda": "coda"}  # of layers: theirs -> ours
PLAIN = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.adapter.weight": "model.injection.mix.weight",
    "transformer.ln_f.weight": "readout_norm.norm.weight",
}
LAYER = {
    "norm_1.weight": "input_layernorm.weight",
    "norm_2.weight": "attention_output_norm.weight",
    "norm_3.weight": "post_attention_layernorm.weight",
    "norm_4.weight": "mlp_output_norm.weight",
    "attn.proj.weight": "self_attn.o_proj.weight",
    "mlp.proj.weight": "mlp.down_proj.weight",
}
HEAD = "lm_head.weight"


def from_huginn(weights: Weights, config: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the native model of a Huginn's state dict and config, in eval mode and the weights' precision.

    Raises `InputError` where a size or a weight is missing or does not fit, and for options this library cannot run.
    """
    native = config_of(config)
    tensors = {n: torch.as_tensor(w) for n, w in plain_names(weights, "transformer.wte.weight", SOURCE).items()}
    require_names(tensors, [*_their_names(native)], (HEAD, ANGLES), SOURCE)
    if ANGLES in tensors:
        require_angles(tensors[ANGLES], native, SOURCE)
    try:
        state = _ours(tensors, native)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{SOURCE}: config and weights are of different models: {error}.") from error
    return build_model(native, state, SOURCE)


def to_huginn(model: LoopedForCausalLM) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Return the state dict and config under Huginn's names; its depth is the trained one.

    Both forms are run on a few tokens. Raises `InputError`, naming what differs, for a model that is no Huginn.
    """
    config = model.config.at_depth(model.trained_loops)
    state = model.state_dict()
    if beyond := [*inexpressible(config), *_biased(state, config)]:
        raise InputError(f"this model cannot be written as a Huginn, which has no {', no '.join(beyond)}.")
    weights = _theirs(state, config)
    placed = [name for name in state if name in set(_our_names(config))]
    require_placed(state, placed, ("exit_gate.",), "Huginn")
    rope = config.rope_parameters or {}
    written = {
        "architectures": ["RavenForCausalLM"],
        "model_type": "huginn_raven",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        **{name: getattr(config, name) for name in TOKENS},
        **{name: allowed[-1] for name, allowed in NEEDS.items() if name != "test_time_noise"},
        "n_layers": config.num_prelude_layers + config.num_stack_layers + config.num_coda_layers,
        "norm_eps": config.rms_norm_eps,
        "rope_base": float(rope["rope_theta"]),
        "qk_bias": config.attention_bias,
        "tie_embeddings": config.tie_word_embeddings,
        "state_init": "like-init",
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    require_same(model, from_huginn(weights, written), "Huginn")
    if config.exit_gate:
        logger.warning("the exit gate is left out: every token will take all %d loops", config.num_loops)
    return weights, written


def inexpressible(config: LoopedConfig) -> list[str]:
    """Return, in words, what this model has and a Huginn lacks."""
    found = differing_fields(config, ARCHITECTURE, {*SIZES.values(), *TOKENS, *JUDGED, "exit_gate", "exit_threshold"})
    if not math.isclose(config.embedding_scale, math.sqrt(config.hidden_size), rel_tol=1e-6):
        found.append(f"embedding_scale={config.embedding_scale}")
    if config.initial_state != "zeros":
        found.append(f"initial_state={config.initial_state!r}")
    return found + family_beyond(config)


def config_of(theirs: Mapping[str, Any]) -> LoopedConfig:
    """Translate a Huginn's config. Its loss saw the last exit alone, of a depth drawn anew at every step."""
    theirs = {**{name: theirs[other] for name, other in FORMER.items() if other in theirs}, **theirs}
    require_sizes(theirs, SIZES, SOURCE)
    beyond = [
        f"{name}={theirs[name]!r}" for name, allowed in NEEDS.items() if theirs.get(name, allowed[0]) not in allowed
    ]
    if theirs.get("num_key_value_heads", theirs["n_heads"]) != theirs["n_heads"]:
        beyond.append(f"num_key_value_heads={theirs['num_key_value_heads']}")
    if theirs["n_embd"] % theirs["n_heads"]:
        beyond.append(f"n_embd={theirs['n_embd']} for n_heads={theirs['n_heads']}")
    if beyond:
        raise InputError(f"this Huginn has {', '.join(beyond)}, which this library cannot run.")
    base = theirs.get("rope_base", ROPE_BASE)
    if not isinstance(base, int | float) or base <= 0:
        raise InputError(f"{SOURCE}: rope_base is {base!r} in its config: it must be a positive number.")
    values = {ours: theirs[name] for name, ours in SIZES.items()}
    values |= {name: theirs[name] for name in TOKENS if name in theirs}
    values |= {name: value for name, value in ARCHITECTURE.items() if name != "residual_part"}
    values |= {
        "residual": "post_add",
        "initial_state": "zeros",
        "rms_norm_eps": theirs.get("norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(base)},
        "attention_bias": bool(theirs.get("qk_bias", True)),
        "embedding_scale": math.sqrt(theirs["n_embd"]),
        "tie_word_embeddings": bool(theirs.get("tie_embeddings", theirs.get("tie_word_embeddings", True))),
        "supervision": "terminal",
        "dropout": 0.0,
        "init": "normal",
    }
    return build_config(values, SOURCE)


def _layers(config: LoopedConfig) -> Iterator[tuple[str, str]]:
    """Yield what stands before the names of every layer's weights, theirs and ours."""
    counts = (config.num_prelude_layers, config.num_stack_layers, config.num_coda_layers)
    for (theirs, ours), count in zip(GROUPS.items(), counts, strict=True):
        for i in range(count):
            yield f"transformer.{theirs}.{i}.", f"model.{ours}.{i}."


def _their_names(config: LoopedConfig) -> Iterator[str]:
    """Yield the names of the weights that a whole checkpoint has."""
    yield from PLAIN
    if not config.tie_word_embeddings:
        yield HEAD
    for prefix, _ in _layers(config):
        yield from (prefix + name for name in (*LAYER, "attn.Wqkv.weight", "mlp.fc.weight"))
        if config.attention_bias:
            yield prefix + "attn.qk_bias"


def _our_names(config: LoopedConfig) -> Iterator[str]:
    """Yield the names of the native weights that have a place there."""
    yield from (*PLAIN.values(), HEAD)
    for _, prefix in _layers(config):
        yield from (prefix + name for name in LAYER.values())
        yield from (f"{prefix}mlp.{name}_proj.weight" for name in ("gate", "up"))
        yield from (f"{prefix}self_attn.{name}_proj.{part}" for name in "qkv" for part in ("weight", "bias"))


def _ours(theirs: Mapping[str, Tensor], config: LoopedConfig) -> State:
    """Return the weights under our names."""
    heads = config.num_attention_heads
    state = {ours: theirs[name] for name, ours in PLAIN.items()}
    if not config.tie_word_embeddings:
        state[HEAD] = theirs[HEAD]
    for there, here in _layers(config):
        state |= {here + ours: theirs[there + name] for name, ours in LAYER.items()}
        gate, up = theirs[there + "mlp.fc.weight"].chunk(2)
        state |= {f"{here}mlp.gate_proj.weight": gate, f"{here}mlp.up_proj.weight": up}
        q, k, v = theirs[there + "attn.Wqkv.weight"].chunk(3)
        attention = {"q_proj.weight": to_halves(q, heads), "k_proj.weight": to_halves(k, heads), "v_proj.weight": v}
        if config.attention_bias:
            q, k = theirs[there + "attn.qk_bias"].flatten(1)
            attention |= {"q_proj.bias": to_halves(q, heads), "k_proj.bias": to_halves(k, heads)}
            attention["v_proj.bias"] = torch.zeros_like(q)
        state |= {f"{here}self_attn.{name}": weight for name, weight in attention.items()}
    return state


def _theirs(ours: Mapping[str, Tensor], config: LoopedConfig) -> State:
    """Return the weights under their names, and the angles that their code keeps among them."""
    heads = config.num_attention_heads
    weights = {name: ours[own] for name, own in PLAIN.items()}
    if not config.tie_word_embeddings:
        weights[HEAD] = ours[HEAD]
    for there, here in _layers(config):
        weights |= {there + name: ours[here + own] for name, own in LAYER.items()}
        weights[there + "mlp.fc.weight"] = torch.cat([ours[f"{here}mlp.{n}_proj.weight"] for n in ("gate", "up")])
        q, k, v = (ours[f"{here}self_attn.{n}_proj.weight"] for n in "qkv")
        weights[there + "attn.Wqkv.weight"] = torch.cat([to_neighbours(q, heads), to_neighbours(k, heads), v])
        if config.attention_bias:
            biases = [to_neighbours(ours[f"{here}self_attn.{n}_proj.bias"], heads) for n in "qk"]
            weights[there + "attn.qk_bias"] = torch.stack(biases).view(2, 1, heads, -1)
    return {name: weight.contiguous() for name, weight in weights.items()} | {ANGLES: angles_of(config)}


def _biased(state: Mapping[str, Tensor], config: LoopedConfig) -> list[str]:
    """Return, in words, biases of values that are not zero: a Huginn has those of queries and keys alone."""
    names = (f"{prefix}self_attn.v_proj.bias" for _, prefix in _layers(config))
    return [f"attention_bias of values ({name})" for name in names if name in state and bool(state[name].any())][:1]
