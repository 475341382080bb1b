"""Models small enough for any test, and checks that a slow one may leave to others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import config

from loopscale.model import LoopedConfig, LoopedForCausalLM

TINY = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_stack_layers": 2,
    "num_attention_heads": 2,
    "num_loops": 3,
    "max_position_embeddings": 48,
    "dropout": 0.0,
}


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """Leave the shapes of arguments unchecked, which takes half of the time or more: others check them."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def tiny_config(**overrides: Any) -> LoopedConfig:
    """A model small enough for any test."""
    return LoopedConfig(**{**TINY, **overrides})


def tiny_model(**overrides: Any) -> LoopedForCausalLM:
    """The same, built, in eval mode."""
    return LoopedForCausalLM(tiny_config(**overrides)).eval()
