"""Inert text: names from files and command lines, shown without being obeyed.

A condition, a corpus or a folder may be called anything; what a terminal would act on is spelled out.
"""

import unicodedata

SPELLED = {"\n": " ", "\r": " ", "\t": " ", "\u2028": " ", "\u2029": " "}
# Cc: control (ESC, BEL); Cs: half of a surrogate pair; and the marks that turn the direction of writing
TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def inert(text: object) -> str:
    """Return `text` on one line, with control characters as escapes: ESC is `\\x1b`."""
    return "".join(SPELLED.get(c) or (_escape(c) if _acts(c) else c) for c in str(text))


def spelled(text: str) -> str:
    """Return a text with its lines and tabs, and anything else that would be obeyed as escapes."""
    return "".join(_escape(c) if _acts(c) and c not in "\n\t" else c for c in text)


def in_markdown(text: object) -> str:
    """Return `text` so that Markdown finds no tag, link, picture or code in it."""
    return inert(text).replace("<", "&lt;").replace("](", "]\\(").replace("`", "\\`")


def file_name(text: object) -> str:
    """Return `text` as the name of a file that no system refuses and that leads nowhere else."""
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in str(text)).strip(".")
    return kept or "-"


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in TURNS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
