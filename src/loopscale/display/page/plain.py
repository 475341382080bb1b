"""Plain page: an answer in words, parts with figures and tables, and how it was measured, for any command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from loopscale.display.page.frame import HERE, PageFigure, render
from loopscale.display.table import Table


@final
@dataclass(frozen=True)
class PagePart:
    """A part of a page under one heading."""

    heading: str
    figures: tuple[PageFigure, ...] = ()
    tables: tuple[Table, ...] = ()


@final
@dataclass(frozen=True)
class Headline:
    """What a page says first: its kind, the answer in a sentence, and answers to questions one by one."""

    kind: str
    answer: str
    points: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def plain_page(headline: Headline, parts: Sequence[PagePart], measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page as HTML; `measured` are tables of names and values, by their titles, which stand folded."""
    return render("plain.html.j2", HERE, headline=headline, parts_shown=parts, measured=measured)
