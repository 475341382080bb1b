"""Native models: those with a key-value cache of their own, which decoding needs beyond the verbs."""

from typing import Any, TypeGuard

from loopscale.errors import InputError, require_looped
from loopscale.hf import wrapped_model
from loopscale.model.looped import LoopedForCausalLM


def is_native(model: Any) -> TypeGuard[LoopedForCausalLM]:
    """Return whether the model is one of ours, with the per-loop cache that decoding needs."""
    return isinstance(model, LoopedForCausalLM)


def require_native(model: Any, part: str) -> LoopedForCausalLM:
    """Return the native model that this is, or that torch.compile or PEFT's adapters are wrapped around.

    Raises `InputError`, naming the `part` that needs it, for others.
    """
    model = wrapped_model(model)
    require_looped(model)
    if is_native(model):
        return model
    family = getattr(model, "family", type(model).__name__)
    raise InputError(
        f"{part} needs a native model, and {family} runs as it is, behind the four verbs, without a cache: audit it, "
        "evaluate it, or generate plainly."
    )
