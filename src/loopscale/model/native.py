"""Models with a cache of their own: what decoding needs beyond the four verbs."""

from typing import Any

from loopscale.errors import InputError
from loopscale.model.looped import LoopedForCausalLM
from loopscale.required import require_looped


def require_native(model: Any, part: str) -> LoopedForCausalLM:
    """Return the model if it is a native one. Raises `InputError`, naming the `part` that needs it, otherwise."""
    require_looped(model)
    if isinstance(model, LoopedForCausalLM):
        return model
    family = getattr(model, "family", type(model).__name__)
    raise InputError(
        f"{part} needs a native model, and {family} runs as it is, behind the four verbs, without a cache: audit it, "
        "evaluate it, or generate plainly."
    )
