"""JSON as rows: one object a line, an array, or an object that wraps one."""

import json
from collections.abc import Iterator
from typing import Any

from loopscale.data.readers.rows import NoText, Rows, text_column
from loopscale.data.readers.source import Source
from loopscale.errors import InputError

DIGITS = 4000  # Python turns no more into an integer, unless it is told to
LINES_ENDINGS = frozenset({".jsonl", ".ndjson"})


def read_json(source: Source, text_field: str | None) -> Rows:
    """Return the text of each row of a JSON file.

    One value is taken as a whole: an array of objects or strings, an object with the text, or an object whose only
    list (`{"data": [...]}`) holds the rows. More than one is JSON lines, whatever the file is called.

    Raises:
        NoText: the first row has no such field.
        InputError: anything else that is no such row, naming its line or number.
    """
    if (whole := _whole(source)) is None:
        return _take(_lines(source), text_field)
    return _take(_rows_of(whole[0], text_field, source), text_field)


def _whole(source: Source) -> tuple[Any] | None:
    """Return the one value of the file (in a tuple, for it may be null), None for lines."""
    text = source.text.lstrip()
    try:
        return (_parsed(source.text, source.where, check=True),)
    except json.JSONDecodeError as error:
        if not text or error.msg == "Extra data" or not _is_document(text, source.ending):
            return None
        raise InputError(
            f"{source.where}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})."
        ) from error
    except InputError:  # told with its line, if it has one
        if _is_document(text, source.ending):
            raise
        return None


def _is_document(text: str, ending: str) -> bool:
    """Return whether a text that is not readable JSON is meant as one value rather than as lines of them."""
    return ending not in LINES_ENDINGS or (text[:1] == "[" and "\n" in text.rstrip() and text[1:2].isspace())


def _lines(source: Source) -> Iterator[tuple[Any, str]]:
    for number, line in enumerate(source.text.replace("\r", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source.where}, line {number}"
        try:
            row = _parsed(line, where, check=False)
            if isinstance(row, dict) and line.count('":') + line.count('" :') > len(row):
                _parsed(line, where, check=True)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not JSON ({error.msg}, column {error.colno}); one object per line is needed."
            ) from error
        yield row, where


def _rows_of(value: Any, text_field: str | None, source: Source) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict) and not _has_text(value, text_field):
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        if len(lists) == 1 and all(isinstance(row, dict | str | None) for row in lists[0]):
            value = lists[0]
    if isinstance(value, list):
        yield from ((row, f"{source.where}, row {number}") for number, row in enumerate(value, start=1))
    else:
        yield value, f"{source.where}, line 1"


def _take(rows: Iterator[tuple[Any, str]], text_field: str | None) -> Rows:
    """Return the text of the rows; the first object's fields tell which one it is."""
    found = Rows()
    for row, where in rows:
        if row is None or isinstance(row, str):  # an array of texts
            found.add(row, where)
            continue
        if not isinstance(row, dict):
            refuse = NoText if found == Rows() else InputError
            raise refuse(f"{where}: a JSON object is needed, this is {type(row).__name__}.")
        if found.column is None:
            found.column = text_column(list(row), text_field, where, "field")
        elif found.column not in row:
            raise InputError(str(_missing(row, found.column, where)))
        found.add(row[found.column], where)
    return found


def _missing(row: dict[str, Any], column: str, where: str) -> NoText:
    try:
        text_column(list(row), column, where, "field")
    except NoText as error:
        return error
    raise AssertionError("the field is there")


def _has_text(row: dict[str, Any], text_field: str | None) -> bool:
    try:
        text_column(list(row), text_field, "")
    except NoText:
        return False
    return True


def _parsed(text: str, where: str, check: bool) -> Any:
    """Return the value of a JSON text; `check` refuses a field that stands twice, of which only the last is read.

    Raises `InputError` for what is nested too deeply, `json.JSONDecodeError` for what is not JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{where}: the field '{twice}' stands there twice: rename or remove one.")
        return row

    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=once if check else None)
    except RecursionError as error:
        raise InputError(f"{where}: JSON nested too deeply to read.") from error


def _integer(digits: str) -> int | float:
    """Return a number of a row; no text is in it, so that one too long for Python need not be exact."""
    return int(digits) if len(digits) < DIGITS else float("inf")
