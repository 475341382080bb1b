"""Rows of a table or of JSON: which column is the text, and one rule for what a row may hold there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from loopscale.errors import InputError

USUAL = ("text", "content", "contents", "body", "document", "raw_content", "article", "story", "passage", "sentence")
NAMES_IN_A_SENTENCE = 20


@final
class NoText(InputError):
    """A file of rows without the wanted column: no text, which only its folder can make up for."""


@final
@dataclass
class Rows:
    """The documents of a file, in order, and what there is to say about them.

    A row whose text is null or empty is no document, in every format; both are counted.
    """

    documents: list[str] = field(default_factory=list)
    column: str | None = None  # where the text stood, in a file of rows
    null: int = 0
    empty: int = 0
    remarks: list[str] = field(default_factory=list)  # on what was guessed and what was passed over

    def add(self, value: Any, where: str) -> None:
        """Take the text of a row; raises `InputError` for what is no text, naming the row."""
        if value is None:
            self.null += 1
        elif not isinstance(value, str):
            kind = type(value).__name__
            raise InputError(f"{where}: field '{self.column}' must be a string, this is {kind}: write text there.")
        elif not value:
            self.empty += 1
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            field = f"field '{self.column}'" if self.column else "the text"
            raise InputError(f"{where}: {field} holds half a surrogate pair, which is not text.")
        else:
            self.documents.append(value)


def text_column(names: Sequence[Any], wanted: str | None, where: str, kind: str = "column") -> str:
    """Return which of a file's columns holds the text.

    Args:
        names: the columns (or the fields of the first row).
        wanted: the one that the user named; None is `text` or else the only one whose name usually means it.
        where: the file, for the error.
        kind: what the names are called.

    Raises:
        NoText: none, or more than one, fits.
        InputError: two columns have that name.
    """
    found = [name for name in names if name == wanted]
    if wanted is None:
        found = [name for name in names if name == "text"] or [
            name for name in names if isinstance(name, str) and name.strip().lower() in USUAL
        ]
    if len(found) == 1:
        return str(found[0])
    if found and len(set(found)) == 1:
        raise InputError(f"{where}: {len(found)} {kind}s are called '{found[0]}': rename all but one.")
    shown = sorted(str(name)[:40] for name in names)
    there = ", ".join(shown[:NAMES_IN_A_SENTENCE]) or "none"
    more = f" and {len(shown) - NAMES_IN_A_SENTENCE:,} more" if len(shown) > NAMES_IN_A_SENTENCE else ""
    missing = f"no {kind} '{wanted or 'text'}'" if not found else f"more than one {kind} may be the text"
    raise NoText(f"{where}: {missing}; its {kind}s are: {there}{more}. Name one as text_field.")
