"""Pretrained models small enough for any test: weights of chance, of every family that a retrofit reads."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

LAYERS = 5
SIZES: Mapping[str, Any] = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}

ORIGINALS: Mapping[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama, biased": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=16),
    "llama, llama3 RoPE": LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "llama, yarn RoPE": LlamaConfig(**SIZES, rope_parameters=YARN),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "olmo2": Olmo2Config(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "smollm3": SmolLM3Config(**SIZES, no_rope_layers=[1] * LAYERS),
}


def original(name: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return one of them, in eval mode; vectors (biases, norms) are drawn too, so that none goes unnoticed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(deepcopy(ORIGINALS[name]), dtype=dtype).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


def prompts(rows: int = 20, length: int = 7) -> torch.Tensor:
    """Return token ids, (rows, length), without the special ones."""
    return torch.randint(3, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(1))
