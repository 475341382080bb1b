"""Tables: cells of text worked out once, rendered as Markdown for files, HTML for pages, with rich for terminals.

Cells may hold names from anywhere, so every rendering takes them as text and never as markup.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from rich import box
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from loopscale.display.text import inert

WIDE = 140  # columns of a terminal that holds sentences beside figures


@dataclass(frozen=True)
class Column:
    """A heading; `numeric` columns are aligned right, `aside` ones left out of a narrow terminal.

    `sentences`: may be broken into lines anywhere in the table. `colours` are rich's by the words a cell starts with.
    """

    heading: str
    numeric: bool = False
    aside: bool = False
    sentences: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns. `name` is the file's, `caption` says what a cell is."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        yield to_rich(self, options.max_width)


def to_markdown(table: Table) -> str:
    """Return the table as a Markdown document: title, caption, rows."""
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [_line([column.heading for column in table.columns]), _line(rules), *map(_line, table.rows)]
    title, caption = (_markdown(text) for text in (table.title, table.caption))
    return "\n".join([f"# {title}", *(["", caption] if caption else []), "", *rows, ""])


def to_html(table: Table) -> str:
    """Return the table's head and body as an HTML element."""
    kinds = ['class="numeric"' if column.numeric else "" for column in table.columns]
    head = "".join(_cell("th", kind, c.heading) for kind, c in zip(kinds, table.columns, strict=True))
    rows = ("".join(_cell("td", kind, cell) for kind, cell in zip(kinds, row, strict=True)) for row in table.rows)
    body = "\n".join(f"<tr>{cells}</tr>" for cells in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def to_rich(table: Table, width: int) -> RichTable:
    """Return the table for a rich console of that width.

    The first and last column are never broken, unless they hold sentences: the name of a row and its verdict.
    """
    shown = [i for i, column in enumerate(table.columns) if width >= WIDE or not column.aside]
    rendered = RichTable(
        title=Text(inert(table.title)) if table.title else None,
        caption=Text(inert(table.caption)) if table.caption else None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    rendered.title_justify = rendered.caption_justify = "left"
    for i in shown:
        column = table.columns[i]
        whole = i in (0, len(table.columns) - 1) and not column.sentences
        justify: JustifyMethod = "right" if column.numeric else "left"
        cells = [column.heading, *(inert(row[i]) for row in table.rows)]
        narrowest = max(map(len, cells)) if whole else len(column.heading.split()[0])
        rendered.add_column(Text(column.heading), justify=justify, no_wrap=whole, min_width=min(narrowest, width))
    for row in table.rows:
        rendered.add_row(*(Text(inert(row[i]), style=_colour(table.columns[i], row[i])) for i in shown))
    return rendered


def _colour(column: Column, cell: str) -> str:
    return next((colour for words, colour in column.colours.items() if cell.startswith(words)), "")


def _cell(tag: str, kind: str, text: str) -> str:
    return f"<{tag}{' ' if kind else ''}{kind}>{escape(inert(text))}</{tag}>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_markdown(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _markdown(text: str) -> str:
    """Return text in which Markdown finds no tag, link, picture or code."""
    return inert(text).replace("<", "&lt;").replace("](", "]\\(").replace("`", "\\`")
