"""Models small enough for any test."""

from typing import Any

from loopscale.model import LoopedConfig, LoopedForCausalLM
from tests.shapes import shapes_unchecked as shapes_unchecked

TINY = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_stack_layers": 2,
    "num_attention_heads": 2,
    "num_loops": 3,
    "max_position_embeddings": 48,
    "dropout": 0.0,
}


def tiny_config(**overrides: Any) -> LoopedConfig:
    """A model small enough for any test."""
    return LoopedConfig(**{**TINY, **overrides})


def tiny_model(**overrides: Any) -> LoopedForCausalLM:
    """The same, built, in eval mode."""
    return LoopedForCausalLM(tiny_config(**overrides)).eval()
