"""Input error: the one that a user can cause, as a sentence that says what is wrong, where, and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. The command line prints its sentence and exits with status 2, without a traceback."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a `name` that is not one of the `known` names of that `kind`, with a guess."""
    names = sorted(known)
    guess = get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{guess[0]}'?" if guess else f"choose one of: {', '.join(names)}."
    return InputError(f"unknown {kind} '{name}': {hint}")
