"""Parcae (package `parcae_lm`): its checkpoints as native models, without that package, and back.

A Parcae has a prelude whose output is normalised, a core that damps its state channel by channel and adds the input,
and a coda behind one map of the state. Every other layer adds embeddings of the tokens to its values. Four things are
written otherwise and are the same: rotary pairs are neighbours; queries and keys are normalised after they are turned,
which is before as well; the norm has no weight, which is a weight of ones; half the square of ReLU is the square with
half the matrix behind it. What its own code draws before the first loop is zero here, unless that is a normal draw.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
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

State = dict[str, Tensor]

# config keys: theirs -> ours; a missing one is an error
SIZES = {
    "padded_vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "n_layers_in_prelude": "num_prelude_layers",
    "n_layers_in_recurrent_block": "num_stack_layers",
    "n_layers_in_coda": "num_coda_layers",
    "mean_recurrence": "num_loops",
    "block_size": "max_position_embeddings",
}
# what every Parcae is that is read here, in our words
ARCHITECTURE: Mapping[str, Any] = {
    "position_embedding": "rope",
    "block_norm": "rmsnorm",
    "residual_part": "pre",
    "injection": "diagonal",
    "recurrence": "residual",
    "readout": "rmsnorm",
    "coda_input": "linear",
    "mlp": "relu2",
    "prelude_norm": True,
    "value_embeddings": True,
    "qk_norm": True,
}
# what they say of themselves, where they say it, and the only value that is followed
NEEDS: Mapping[str, Any] = {
    "injection_type": "diagonal",
    "block_class_name": "TransformerPreNormBlock",
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "BaseMLP",
    "nonlin_name": "ReLU2",
    "prelude_norm": True,
    "qk_norm": True,
    "bias": False,
    "qk_bias": False,
    "clip_qkv": None,
    "logit_softcap": None,
    "mup_model_scaling_factor": 1,
    "randomize_positions_from": None,
    "center_attention": False,
    "debias_attention": False,
    "use_abacus": False,
}
# ways of initialising that also scale embeddings or logits
SCALING = {
    *("takase", "takase-scaled", "noci-anagnostidis", "shaped", "deep-scale-simple", "deep-scale-full"),
    "scaled-and-logit-scale",
}
DRAWN = {"normal": "noise", "zero": "zeros", "like-init": "zeros", "embed": "zeros"}  # state_init -> initial_state
# fields with a rule of their own in `inexpressible`, and the ids that generation_config.json keeps
JUDGED = {
    *("residual", "norm_placement", "rope_parameters", "initial_state", "num_key_value_heads", "head_dim"),
    *("tie_word_embeddings", "rms_norm_eps", "qk_norm_eps", "initializer_range", "pad_token_id", "bos_token_id"),
    "eos_token_id",
}
ROPE_BASE = 50_000.0
SOURCE = "the Parcae checkpoint"
GROUPS = {"prelude": "prelude", "core_block": "layers", "coda": "coda"}  # of layers: theirs -> ours
HEAD = "lm_head.weight"
PLAIN = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_prelude.weight": "model.prelude_norm.weight",
    "transformer.adapter.A_log": "model.injection.log_decay",
    "transformer.adapter.dt_bias": "model.injection.raw_step",
    "transformer.adapter.B": "model.injection.input.weight",
    "transformer.C.weight": "coda_input.map.weight",
    "transformer.ln_f.weight": "readout_norm.norm.weight",
}
LAYER = {
    "norm_1.weight": "input_layernorm.weight",
    "norm_2.weight": "post_attention_layernorm.weight",
    "attn.c_v.weight": "self_attn.v_proj.weight",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "mlp.fc.weight": "mlp.up_proj.weight",
}
TURNED = {"attn.c_q.weight": "self_attn.q_proj.weight", "attn.c_k.weight": "self_attn.k_proj.weight"}
HALVED = ("mlp.proj.weight", "mlp.down_proj.weight")
GATE, VALUES = ("attn.ve_gate.weight", "self_attn.values.gate.weight"), "self_attn.values.embedding.weight"
ONES = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")


def from_parcae(weights: Weights, config: Mapping[str, Any]) -> LoopedForCausalLM:
    """Return the native model of a Parcae's state dict and config, in eval mode and the weights' precision.

    Raises `InputError` where a size or a weight is missing or does not fit, and for options this library cannot run.
    """
    tensors = {n: torch.as_tensor(w) for n, w in plain_names(weights, "transformer.wte.weight", SOURCE).items()}
    floats = [
        tensor.dtype
        for name, tensor in tensors.items()
        if name != ANGLES and tensor.is_floating_point() and tensor.element_size() > 1
    ]
    native = config_of(config, reduce(torch.promote_types, floats, torch.bfloat16))
    require_names(tensors, [*_their_names(native)], (HEAD, ANGLES), SOURCE)
    if ANGLES in tensors:
        require_angles(tensors[ANGLES], native, SOURCE)
    try:
        state = _ours(tensors, native)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{SOURCE}: config and weights are of different models: {error}.") from error
    return build_model(native, state, SOURCE)


def to_parcae(model: LoopedForCausalLM) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Return the state dict and config under Parcae's names; its depth is the trained one.

    Both forms are run on a few tokens. Raises `InputError`, naming what differs, for a model that is no Parcae.
    """
    config, state = model.config.at_depth(model.trained_loops), model.state_dict()
    beyond = inexpressible(config, model.dtype)
    scaled = (f"{prefix}{name}" for _, prefix, _ in _layers(config) for name in ONES)
    beyond += [f"weighted qk_norm ({name})" for name in scaled if name in state and bool((state[name] != 1).any())][:1]
    if beyond:
        raise InputError(f"this model cannot be written as a Parcae, which has no {', no '.join(beyond)}.")
    require_placed(state, [name for name in state if name in set(_our_names(config))], (), "Parcae")
    weights = _theirs(state, config)
    written = {
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        **{name: value for name, value in NEEDS.items() if value is not None},
        "vocab_size": config.vocab_size,
        "num_key_value_heads": config.num_key_value_heads,
        "recurrent_embedding_dimension": config.hidden_size,
        "recurrent_intermediation_embedding_dimension": config.intermediate_size,
        "norm_eps": config.rms_norm_eps,
        "rope_settings": {"use_rope": True, "rope_base": (config.rope_parameters or {})["rope_theta"]},
        "tie_embeddings": config.tie_word_embeddings,
        "init_strategy": "scaled-zero",
        "init_orthogonal": True,
        "state_init": {"noise": "normal", "zeros": "zero"}[config.initial_state],
        "mean_backprop_depth": _backprop_depth(config),
        "_class_name": "ParcaeConfig",
    }
    require_same(model, from_parcae(weights, written), "Parcae")
    return weights, written


def inexpressible(config: LoopedConfig, dtype: torch.dtype) -> list[str]:
    """Return, in words, what this model has and a Parcae lacks."""
    found = differing_fields(config, ARCHITECTURE, {*SIZES.values(), *JUDGED})
    if config.qk_norm_eps != torch.finfo(dtype).eps:
        found.append(f"qk_norm_eps={config.qk_norm_eps}")
    if config.initial_state == "embedded":
        found.append("initial_state='embedded'")
    if config.num_stack_layers * (config.num_loops - 1) % 2 or _backprop_depth(config) is None:
        layers = f"{config.num_distinct_layers} layers, {config.num_stack_layers} of them in {config.num_loops} loops"
        found.append(f"value_embeddings where these have them ({layers})")
    return found + family_beyond(config)


def _backprop_depth(config: LoopedConfig) -> int | None:
    """Return a depth of back-propagation with which every gate of theirs is where one of ours is, if there is one."""
    return next((b for b in (2, 1) if (config.num_stack_layers * b - config.num_distinct_layers) % 2 == 0), None)


def config_of(theirs: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> LoopedConfig:
    """Translate a Parcae's config. Its loss saw the last exit alone, of a depth drawn anew at every step.

    `dtype` is that of the weights, whose precision is the epsilon of its norm of queries and keys.
    """
    theirs = {"padded_vocab_size": theirs.get("vocab_size"), **theirs}
    require_sizes(theirs, SIZES, SOURCE)
    D, heads = theirs["n_embd"], theirs["num_attention_heads"]
    same = {
        "num_key_value_heads": heads,
        "recurrent_num_attention_heads": heads,
        "recurrent_embedding_dimension": D,
        "recurrent_intermediation_embedding_dimension": theirs["intermediate_size"],
    }
    asked = {**NEEDS, **same}
    beyond = [f"{n}={theirs[n]!r}" for n, value in asked.items() if theirs.get(n) not in (None, value)]
    told = ("norm_class_name", "nonlin_name", "qk_norm", "prelude_norm")  # whose default is another
    beyond += [f"{n}={theirs.get(n)!r}" for n in told if theirs.get(n) != NEEDS[n]]
    if str(theirs.get("init_strategy", "scaled")) in SCALING:
        beyond.append(f"init_strategy={theirs['init_strategy']!r}, which scales embeddings or logits")
    if str(theirs.get("state_init", "like-init")) not in DRAWN:
        beyond.append(f"state_init={theirs['state_init']!r}")
    rope = theirs.get("rope_settings") or {}
    base = rope.get("rope_base", ROPE_BASE) if isinstance(rope, Mapping) else None
    if not isinstance(base, int | float) or base <= 0:
        raise InputError(f"{SOURCE}: rope_settings is {rope!r} in its config: its rope_base must be a positive number.")
    if rope.get("rope_condense_ratio", 1) != 1 or not rope.get("use_rope", True):
        beyond.append(f"rope_settings={rope!r}")
    if D % heads:
        beyond.append(f"n_embd={D} for num_attention_heads={heads}")
    if beyond:
        raise InputError(f"this Parcae has {', '.join(dict.fromkeys(beyond))}, which this library cannot run natively.")
    values = {ours: theirs[name] for name, ours in SIZES.items()}
    values |= {name: value for name, value in ARCHITECTURE.items() if name != "residual_part"}
    values |= {
        "residual": "pre",
        "initial_state": DRAWN[theirs.get("state_init", "like-init")],
        "rms_norm_eps": theirs.get("norm_eps", 1e-5),
        "qk_norm_eps": torch.finfo(dtype).eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(base)},
        "tie_word_embeddings": bool(theirs.get("tie_embeddings", False)),
        "supervision": "terminal",
        "dropout": 0.0,
        "init": "normal",
    }
    return build_config(values, SOURCE)


def _layers(config: LoopedConfig) -> Iterator[tuple[str, str, int | None]]:
    """Yield what stands before the names of a layer's weights, theirs and ours, and its value embedding's number."""
    counts, at = (config.num_prelude_layers, config.num_stack_layers, config.num_coda_layers), 0
    for (theirs, ours), count in zip(GROUPS.items(), counts, strict=True):
        for i in range(count):
            yield f"transformer.{theirs}.{i}.", f"model.{ours}.{i}.", at if config.has_value_embedding(at) else None
            at += 1


def _their_names(config: LoopedConfig) -> Iterator[str]:
    """Yield the names of the weights that a whole checkpoint has."""
    yield from PLAIN
    if not config.tie_word_embeddings:
        yield HEAD
    for prefix, _, values in _layers(config):
        yield from (prefix + name for name in (*LAYER, *TURNED, HALVED[0]))
        if values is not None:
            yield from (prefix + GATE[0], f"value_embeds.{values}.weight")


def _our_names(config: LoopedConfig) -> Iterator[str]:
    """Yield the names of the native weights that have a place there."""
    yield from (*PLAIN.values(), HEAD)
    for _, prefix, _ in _layers(config):
        yield from (prefix + name for name in (*LAYER.values(), *TURNED.values(), HALVED[1], GATE[1], VALUES, *ONES))


def _ours(theirs: Mapping[str, Tensor], config: LoopedConfig) -> State:
    """Return the weights under our names."""
    heads = config.num_attention_heads
    state = {ours: theirs[name] for name, ours in PLAIN.items()}
    if not config.tie_word_embeddings:
        state[HEAD] = theirs[HEAD]
    for there, here, values in _layers(config):
        state |= {here + ours: theirs[there + name] for name, ours in LAYER.items()}
        state |= {here + ours: to_halves(theirs[there + name], heads) for name, ours in TURNED.items()}
        state[here + HALVED[1]] = theirs[there + HALVED[0]] / 2
        state |= {here + name: torch.ones(config.head_dim or 0, dtype=theirs[there + HALVED[0]].dtype) for name in ONES}
        if values is not None:
            state |= {here + GATE[1]: theirs[there + GATE[0]], here + VALUES: theirs[f"value_embeds.{values}.weight"]}
    return state


def _theirs(ours: Mapping[str, Tensor], config: LoopedConfig) -> State:
    """Return the weights under their names, and the angles that their code keeps among them."""
    heads = config.num_attention_heads
    weights = {name: ours[own] for name, own in PLAIN.items()}
    weights[HEAD] = ours["model.embed_tokens.weight" if config.tie_word_embeddings else HEAD]
    for there, here, values in _layers(config):
        weights |= {there + name: ours[here + own] for name, own in LAYER.items()}
        weights |= {there + name: to_neighbours(ours[here + own], heads) for name, own in TURNED.items()}
        weights[there + HALVED[0]] = ours[here + HALVED[1]] * 2
        if values is not None:
            weights |= {there + GATE[0]: ours[here + GATE[1]], f"value_embeds.{values}.weight": ours[here + VALUES]}
    return {name: weight.contiguous() for name, weight in weights.items()} | {ANGLES: angles_of(config)}
