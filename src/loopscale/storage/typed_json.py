"""Typed JSON: `from_json` and `plain`, between the values of a document and the dataclasses that they stand for.

One reading, so that a wrong value is one sentence wherever it is met; one writing, so that a number that is not finite
is `null` everywhere, because JSON has no other word for it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, cached_property
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar

from loopscale.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, SchemaValidator

T = TypeVar("T")

#: Metadata of the dataclass field that takes the keys which the class does not know.
REST: Mapping[str, Any] = {"rest": True}
REMEDY = "give a file that loopscale wrote"
DEEPEST = 200  # levels of lists and objects

EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "dataclass_type"), "an object with named values"),
}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: objects for dataclasses, lists for tuples, None for numbers that are not finite.

    What a dataclass holds in a field marked `REST` stands beside its fields, as do keys that it was read with and does
    not know.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(_as_object(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = 1) -> str:
    """Return a value as strict JSON text (see `plain`)."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def parse_json(text: str, where: str, remedy: str = REMEDY) -> Any:
    """Return the plain values of a JSON text; `where` names it in the sentence of an `InputError`.

    `NaN` and `Infinity`, which some writers leave, are numbers that are not finite.
    """
    try:
        document = json.loads(text, object_pairs_hook=_object)
        if _depth(document) > DEEPEST:
            raise RecursionError
    except json.JSONDecodeError as error:
        what = f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise InputError(f"{where} {what}: {remedy}.") from error
    except RecursionError as error:
        raise InputError(f"{where} nests lists or objects more than {DEEPEST} deep: {remedy}.") from error
    except ValueError as error:  # a key twice, or an integer of thousands of digits
        what = str(error) if isinstance(error, _NamedTwice) else "holds a number too long to read"
        raise InputError(f"{where} {what}: {remedy}.") from error
    return document


def from_json(document: Any, kind: type[T] | GenericAlias, where: str, remedy: str = REMEDY) -> T:
    """Return plain JSON values as a `kind`; `null` for a number is NaN, and keys that `kind` does not know are kept.

    Raises `InputError` as `read_json` does.
    """
    from pydantic_core import ValidationError  # here, because commands start without it

    wanted: Any = kind
    try:
        return _validator(wanted).validate_python(document)
    except ValidationError as error:
        raise InputError(f"{where}{_complaint(error.errors(include_url=False))}: {remedy}.") from error


class _NamedTwice(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _NamedTwice(f"names {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return found


def _depth(document: Any) -> int:
    level, depth = [document], 0
    while level := [entry for value in level for entry in _entries(value)]:
        depth += 1
    return depth


def _entries(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _complaint(errors: "list[ErrorDetails]") -> str:
    first, more = errors[0], len(errors) - 1
    *place, last = first["loc"] or ("",)
    if first["type"] == "missing":
        return f"{_place(place)} lacks '{last}'" + (f" (and {more} more)" if more else "")
    said = f"must be {EXPECTED[first['type']]}" if first["type"] in EXPECTED else _in_words(first)
    return f"{_place([*place, last])} {said}" + (f" ({more} more like it)" if more else "")


def _in_words(error: "ErrorDetails") -> str:
    if error["type"] == "literal_error":
        return f"must be {error['ctx']['expected']}"
    if error["type"] == "value_error":  # the class's own check
        return f"is refused ({str(error['ctx']['error']).rstrip('.')})"
    return f"is refused ({error['msg']})"


def _place(keys: list[int | str] | tuple[int | str, ...]) -> str:
    names = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys if key != "")
    return f", {names.lstrip('.')}" if names else ""


@cache
def _validator(kind: Any) -> "SchemaValidator":
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_as_stored(TypeAdapter(kind).core_schema))


def _as_stored(schema: Any) -> Any:
    """Return pydantic's schema with our reading of JSON: no text for numbers, `null` for NaN, unknown keys kept."""
    if isinstance(schema, list | tuple):
        return [_as_stored(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    known = {key: part if key in ("keys_schema", "metadata") else _as_stored(part) for key, part in schema.items()}
    match schema.get("type"):
        case "float":
            return _before(lambda value: math.nan if value is None else value, {**known, "strict": True})
        case "int" | "str" | "bool":
            return {**known, "strict": True}
        case "dataclass-args":
            return {**known, "extra_behavior": "allow"}
        case "dataclass" if name := _rest_field(schema["cls"]):
            own = {f.name for f in fields(schema["cls"])} - {name}
            return _before(lambda document: _with_rest(document, own, name), known)
    return known


def _before(function: Any, schema: Any) -> dict[str, Any]:
    return {"type": "function-before", "function": {"type": "no-info", "function": function}, "schema": schema}


def _with_rest(document: Any, own: set[str], name: str) -> Any:
    if not isinstance(document, dict):
        return document
    known = {key: value for key, value in document.items() if key in own}
    return {**known, name: {key: value for key, value in document.items() if key not in own}}


def _as_object(record: Any) -> dict[str, Any]:
    """Return fields and what stands beside them: the rest, or keys that were read and are neither field nor cached."""
    known: dict[str, Any] = {}
    rest = _rest_field(type(record))
    for f in fields(record):
        known |= getattr(record, f.name) if f.name == rest else {f.name: getattr(record, f.name)}
    held = {} if rest else getattr(record, "__dict__", {})
    read = {key: v for key, v in held.items() if not isinstance(getattr(type(record), key, None), cached_property)}
    return {**known, **{key: value for key, value in read.items() if key not in known}}


def _rest_field(kind: type) -> str | None:
    return next((f.name for f in fields(kind) if f.metadata.get("rest")), None)
