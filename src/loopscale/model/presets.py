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

# The paper's sizes (arXiv 2606.24898), one for a laptop's CPU, the same in the form that other runtimes know, and one
# between.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "laptop": _LAPTOP,
    "laptop-rope": {**_LAPTOP, "position_embedding": "rope", "norm_penalty_coef": 0.01},
    "small": {
        "hidden_size": 192,
        "num_stack_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 128,
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
