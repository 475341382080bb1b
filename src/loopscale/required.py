"""Input check of looped models, asked wherever a model comes in.

What is no looped model would otherwise fail far inside, in an attribute's name that says nothing to who gave it.
"""

from typing import Any

from loopscale.errors import InputError

VERBS = {
    "embed": "embed(input_ids) -> h",
    "step": "step(h, k) -> z",
    "carry": "carry(z, k) -> h",
    "readout": "readout(z, k) -> logits",
}


def require_looped(model: Any) -> None:
    """Check that the four verbs and `num_loops` are there. Raises `InputError` that says what to give instead."""
    name = type(model).__name__
    if isinstance(model, str):
        raise InputError(f"'{model}' is a name and no looped model: load it first, loopscale.load.load_model(name).")
    if isinstance(model, type):
        raise InputError(f"{model.__name__} is a class and no looped model: give an instance of it.")
    lacking = [f"`{words}`" for verb, words in VERBS.items() if not callable(getattr(model, verb, None))]
    if lacking:
        inner = getattr(model, "module", None)
        if inner is not None and all(callable(getattr(inner, verb, None)) for verb in VERBS):
            raise InputError(f"{name} wraps a looped model and is none itself: give its `.module`.")
        raise InputError(f"{name} is not a looped model: it lacks {', '.join(lacking)}.")
    loops = getattr(model, "num_loops", None)
    if not isinstance(loops, int) or isinstance(loops, bool) or loops < 1:
        raise InputError(f"{name}.num_loops is {loops!r}: give the number of loops, at least 1.")
