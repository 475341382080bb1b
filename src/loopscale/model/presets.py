"""Presets: the sizes of a model that have a name."""

from collections.abc import Mapping
from typing import Any

from loopscale.errors import unknown
from loopscale.model.config import LoopedConfig

_LAPTOP: Mapping[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "num_stack_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "dropout": 0.0,  # a few hundred steps see no window twice
}

# layers before the loops, the loops, and layers after: what Huginn and Parcae, each with parts of its own, have alike
_WHOLE: Mapping[str, Any] = {
    "num_prelude_layers": 1,
    "num_coda_layers": 1,
    "num_loops": 8,
    "initial_state": "noise",
    "position_embedding": "rope",
    "supervision": "terminal",
    "init": "normal",
}

# The paper's sizes (arXiv 2606.24898), one for a laptop's CPU, the same in the form that other runtimes know, and one
# between. Then the forms of Huginn (arXiv 2502.05171) and Parcae (arXiv 2604.12946) at a laptop's size, and the form of
# public models of at most 10M parameters that are looped 8 to 32 times on FineWeb.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "laptop": _LAPTOP,
    "laptop-rope": {**_LAPTOP, "position_embedding": "rope", "norm_penalty_coef": 0.01},
    "small": {
        "hidden_size": 192,
        "num_stack_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 128,
    },
    "huginn-laptop": {
        **_LAPTOP,
        **_WHOLE,
        "injection": "linear",
        "residual": "post_add",
        "coda_input": "readout",
        "embedding_scale": 128**0.5,
    },
    "parcae-laptop": {
        **_LAPTOP,
        **_WHOLE,
        "injection": "diagonal",
        "embedding_scale": 50.0,  # the input enters at unit scale, where Parcae normalises it
        "coda_input": "linear",
        "qk_norm": True,
        "mlp": "gelu",
    },
    "fineweb-10m": {
        **_WHOLE,
        "vocab_size": 8192,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_stack_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "num_loops": 16,
        "initial_state": "embedded",
        "injection": "add",
        "qk_norm": True,
        "dropout": 0.0,  # no window is seen twice
    },
    "44m": {"hidden_size": 512, "num_stack_layers": 8, "num_attention_heads": 8},
    "129m": {"hidden_size": 768, "num_stack_layers": 12, "num_attention_heads": 12},
    "1.4b": {"hidden_size": 2048, "num_stack_layers": 20, "num_attention_heads": 16},
}


def preset_config(name: str, **overrides: Any) -> LoopedConfig:
    """Return the configuration of a named size, with `overrides` on top.

    Raises `InputError` for an unknown name.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return LoopedConfig(**{**PRESETS[name], **overrides})
