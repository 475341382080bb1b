"""Mechanism that a configuration names: its effects on the state, and the arguments it takes.

A field holds a name or `{kind: name, ...arguments}`, so that a new mechanism with new arguments is one class in one
registry, and neither the configuration nor the command line grows with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from loopscale.errors import InputError, unknown
from loopscale.storage import from_json

Named = str | Mapping[str, Any]  # how a field picks a mechanism


class Effect(StrEnum):
    """What a mechanism does to one coordinate of the state (`scale`, `mean`), as far as its equation says."""

    SEES = "sees"  # a loss behind it depends on the coordinate
    HIDES = "hides"  # no loss behind it can
    KEEPS = "keeps"  # the coordinate goes on into the next loop
    REMOVES = "removes"  # it does not
    WEIGHTS = "weights"  # the weights decide: only a measurement can tell


@dataclass(frozen=True)
class NoArguments:
    """Nothing to choose."""


class Mechanism:
    """What every mechanism says of itself. A coordinate without an effect is one that the weights decide."""

    effects: ClassVar[Mapping[str, Effect]] = {}
    reads_loop: ClassVar[bool] = False  # whether it computes another function at every loop k
    reads_injected: ClassVar[bool] = False  # whether it reads what the prelude made of the tokens (`Context.injected`)
    Arguments: ClassVar[type] = NoArguments  # a frozen dataclass that checks its values, with a default for each


M = TypeVar("M", bound=Mechanism)


def choose(field: str, value: Named, registry: Mapping[str, type[M]]) -> tuple[type[M], Any]:
    """Return the class that a field's value names, and its checked arguments.

    Raises `InputError` for an unknown kind or argument, and for a value of a wrong type or out of range.
    """
    kind, given = (value, {}) if isinstance(value, str) else _parts_of(field, value, registry)
    if not isinstance(kind, str) or kind not in registry:
        raise unknown(field, kind, registry)
    chosen = registry[kind]
    known = [f.name for f in fields(chosen.Arguments)]
    for name in given:
        if name not in known:
            if not known:
                raise InputError(f"{field} '{kind}' takes no arguments, got '{name}': leave it out.")
            raise unknown(f"argument of {field} '{kind}'", name, known)
    return chosen, _checked(f"{field} '{kind}'", given, chosen.Arguments)


def kind_of(value: Named) -> str:
    """Return the name in a field's value."""
    return value if isinstance(value, str) else str(value["kind"])


def _parts_of(field: str, value: Any, registry: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    if not isinstance(value, Mapping) or "kind" not in value:
        raise InputError(
            f"{field} is {value!r}: give a name ({', '.join(sorted(registry))}), or a mapping with its name under "
            "`kind` and its arguments."
        )
    return value["kind"], {key: argument for key, argument in value.items() if key != "kind"}


def _checked(where: str, given: Mapping[str, Any], arguments: type) -> Any:
    if not given:
        return arguments()
    try:
        return from_json(dict(given), arguments, where, "correct this argument")
    except InputError as error:
        if reason := _own_sentence(error.__cause__):
            raise InputError(f"{where}: {reason}") from error
        raise


def _own_sentence(cause: Any) -> str | None:
    """Return the sentence with which the arguments' own check refused a value, where it was that."""
    for found in cause.errors(include_url=False) if hasattr(cause, "errors") else ():
        if isinstance(found.get("ctx", {}).get("error"), InputError):
            return str(found["ctx"]["error"])
    return None
