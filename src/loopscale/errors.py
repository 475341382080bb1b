"""Input error: the one that a user can cause, as a sentence that says what is wrong, where, and how to mend it.

What is no looped model is told here too: it comes in everywhere, and would fail far inside in the name of an attribute.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

VERBS = {
    "embed": "embed(input_ids) -> h",
    "step": "step(h, k) -> z",
    "carry": "carry(z, k) -> h",
    "readout": "readout(z, k) -> logits",
}


class InputError(ValueError):
    """Bad input. The command line prints its sentence and exits with status 2, without a traceback."""


class FailedElsewhere(InputError):
    """Bad input that another process of the same work tells of: this one ends alike, without a word."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a `name` that is not one of the `known` names of that `kind`, with a guess."""
    names = sorted(known)
    guess = get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{guess[0]}'?" if guess else f"choose one of: {', '.join(names)}."
    return InputError(f"unknown {kind} '{name}': {hint}")


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
