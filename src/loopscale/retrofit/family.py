"""Families of pretrained models whose layers are ours: their configuration in our words, or what stands in the way.

What a looped model cannot compute is refused by the name of its field, before anything is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from transformers import PreTrainedConfig

from loopscale.convert import FOLDERS, kind_of_config
from loopscale.convert.build import build_config
from loopscale.errors import InputError
from loopscale.load import LIVE
from loopscale.model import LoopedConfig

Described = Mapping[str, Any]  # a pretrained model's configuration as plain values


@final
@dataclass(frozen=True)
class Family:
    """What a kind of model always has; `bias_field` names the field that says whether its attention has biases."""

    bias_field: str | None = "attention_bias"
    biases: bool = False  # of queries, keys and values, where no field says
    output_bias: bool = True  # the output has one too, where the others do
    qk_norm: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)  # of `LoopedConfig`, that every model of the kind has
    names: Mapping[str, str] = field(default_factory=dict)  # parts of a weight's name -> ours


# model_type -> what its layers are
FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(bias_field=None),
    "olmo2": Family(
        qk_norm=True,
        fields={"qk_norm_whole": True, "residual": "post"},
        names={"post_attention_layernorm": "attention_output_norm", "post_feedforward_layernorm": "mlp_output_norm"},
    ),
    "qwen2": Family(bias_field=None, biases=True, output_bias=False),
    "qwen3": Family(qk_norm=True),
    "smollm3": Family(),
}
# fields of theirs -> ours, with the same meaning
FIELDS: Mapping[str, str] = {
    name: name
    for name in (
        *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
        *("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "mlp_bias"),
    )
}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # the same at every length of text
# fields that say something our layers do not compute, and when they do
BEYOND: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "kv_lora_rank", "layer_block_type"),
        bool,
    ),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "clip_qkv"), bool),
    **dict.fromkeys(("residual_multiplier", "embedding_multiplier", "logits_scaling", "logit_scale"), lambda x: x != 1),
    "attention_multiplier": bool,
    "partial_rotary_factor": lambda share: share != 1,
    "hidden_act": lambda name: name not in ("silu", "swish"),
    "no_rope_layers": lambda layers: not all(layers),
    "quantization_config": bool,
    "is_encoder_decoder": bool,
}


def looped_config(theirs: PreTrainedConfig, core: tuple[int, int], num_loops: int, **parts: Any) -> LoopedConfig:
    """Return the configuration of a pretrained model whose layers from core[0] up to core[1] are looped.

    `parts` are fields of `LoopedConfig`. Raises `InputError` for a model that has no such form, naming the field, and
    for a core that it has no layers for.
    """
    described = theirs.to_dict()
    source = f"this {theirs.model_type}"
    refuse(described)
    first, last = checked_core(core, described["num_hidden_layers"])
    family = FAMILIES[theirs.model_type]
    biases = bool(described.get(family.bias_field)) if family.bias_field else family.biases
    values = {ours: described[name] for name, ours in FIELDS.items() if described.get(name) is not None}
    values |= {
        "num_prelude_layers": first,
        "num_stack_layers": last - first,
        "num_coda_layers": described["num_hidden_layers"] - last,
        "num_loops": num_loops,
        "position_embedding": "rope",
        "rope_parameters": described["rope_parameters"],
        "attention_bias": biases,
        "attention_output_bias": biases and family.output_bias,
        "qk_norm": family.qk_norm,
        **family.fields,
        "readout": "rmsnorm",
        "supervision": "terminal",  # the loss that made these weights saw one exit
        "dropout": 0.0,
        "init": "normal",
        **parts,
    }
    return build_config(values, source)


def refuse(described: Described) -> None:
    """Raise `InputError`, naming the field, for a model that computes something our layers do not."""
    kind = kind_of_config(described)
    beyond = (name for name, lacks in BEYOND.items() if described.get(name) is not None and lacks(described[name]))
    found = next((f"{name} {_short(described[name])}" for name in beyond), None)
    if kind in FOLDERS:
        raise InputError(f"a model of type '{kind}' is a looped one already: evaluate, train or convert it as it is.")
    if kind in LIVE:
        raise InputError(f"a model of type '{kind}' is a looped one already: evaluate it as it is.")
    if kind not in FAMILIES:
        known, why = ", ".join(sorted(FAMILIES)), f" (it has {found})" if found else ""
        raise InputError(f"a model of type '{kind}' has no looped form{why}: retrofit reads {known}.")
    if found:
        raise InputError(f"this {kind} has {found}, which a looped model lacks.")
    positions = described.get("max_position_embeddings") or 0
    window = described.get("sliding_window")
    kinds = set(described.get("layer_types") or ())
    windowed = kinds != {"full_attention"} if kinds else described.get("use_sliding_window", True)
    if window is not None and window < positions and windowed:
        raise InputError(f"this {kind} has sliding_window {window}, and a looped model attends to the whole text.")
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise InputError(f"this {kind} has layer_types {', '.join(other)}, which a looped model lacks.")
    rope = described.get("rope_parameters") or {}
    if rope.get("rope_type") not in ROPE_TYPES:
        raise InputError(
            f"this {kind} has rope_type {rope.get('rope_type')!r} in its rope_parameters: retrofit takes "
            f"{', '.join(ROPE_TYPES)}."
        )
    if rope.get("partial_rotary_factor", 1) != 1:
        raise InputError(f"this {kind} has partial_rotary_factor {rope['partial_rotary_factor']}: retrofit takes 1.")


def checked_core(core: tuple[int, int], layers: int) -> tuple[int, int]:
    """Return the core's first layer and the one after its last. Raises `InputError` for layers that are not there."""
    first, last = core
    if not 0 <= first < last <= layers:
        raise InputError(
            f"core {first}:{last} is not a range of the model's {layers} layers: give FIRST:END with "
            f"0 <= FIRST < END <= {layers}; END is the first layer after the core."
        )
    return first, last


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
