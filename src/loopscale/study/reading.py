"""Reading a JSON object key by key, with one clear sentence for whatever is missing or of the wrong kind."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from loopscale.errors import InputError


class Reader:
    """Takes the known keys of one JSON object, each checked; what was not taken is `rest()`.

    Every error is an `InputError` that names the place (`where`) and the key.
    """

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, Mapping):
            raise InputError(f"{where} is not an object with named values: not a file that loopscale wrote.")
        self._left = dict(document)
        self._where = where

    def text(self, key: str) -> str:
        """Take a string."""
        value = self._take(key)
        return value if isinstance(value, str) else self._wrong(key, "text")

    def integer(self, key: str) -> int:
        """Take a whole number."""
        value = self._take(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self._wrong(key, "a whole number")

    def number(self, key: str) -> float:
        """Take a number; `null` is NaN."""
        value = self._take(key)
        return _number(value) if _is_number(value) else self._wrong(key, "a number")

    def numbers(self, key: str) -> tuple[float, ...]:
        """Take a list of numbers; `null` is NaN."""
        values = self.list(key)
        return tuple(map(_number, values)) if all(map(_is_number, values)) else self._wrong(key, "a list of numbers")

    def list(self, key: str) -> list[Any]:
        """Take a list."""
        value = self._take(key)
        return value if isinstance(value, list) else self._wrong(key, "a list")

    def mapping(self, key: str, needed: Collection[str] = ()) -> dict[str, Any]:
        """Take an object that has at least the `needed` keys."""
        value = self._take(key)
        if not isinstance(value, Mapping):
            return self._wrong(key, "an object")
        if missing := [name for name in needed if name not in value]:
            raise InputError(f"{self._where}: '{key}' lacks '{missing[0]}': not a file that loopscale wrote.")
        return dict(value)

    def rest(self) -> dict[str, Any]:
        """Return the keys not taken so far."""
        return dict(self._left)

    def _take(self, key: str) -> Any:
        if key not in self._left:
            raise InputError(f"{self._where} lacks '{key}': not a file that loopscale wrote, or an incomplete one.")
        return self._left.pop(key)

    def _wrong(self, key: str, wanted: str) -> Any:
        raise InputError(f"{self._where}: '{key}' must be {wanted}: not a file that loopscale wrote.")


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length() < 1024  # what a float64 holds
    return value is None or isinstance(value, float)


def _number(value: int | float | None) -> float:
    return math.nan if value is None else float(value)
