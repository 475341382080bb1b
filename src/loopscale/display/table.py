"""Tables: cells of text worked out once, rendered as Markdown for files, HTML for pages, with rich for terminals.

Cells may hold names from anywhere, so every rendering takes them as text and never as markup.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from loopscale.display.numbers import NOT_FINITE, NOTHING
from loopscale.display.text import in_markdown, inert

GAP, EDGES = 2, 2  # columns of a terminal between two cells, and at the ends of a row
NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", re.ASCII)
BROAD = 9  # columns that fit a page of paper upright
MISSING = {"", "-", NOTHING, NOT_FINITE}  # cells that a page sorts last
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
    title, caption = (in_markdown(text) for text in (table.title, table.caption))
    head = [line for text in (f"# {title}" if title else "", caption) if text for line in (text, "")]
    return "\n".join([*head, *rows, ""])


def to_html(table: Table) -> str:
    """Return the table as an HTML element: a heading row, and cells with what they are sorted by."""
    kinds = [' class="numeric"' if column.numeric else "" for column in table.columns]
    columns = [_sorted_by([row[i] for row in table.rows]) for i in range(len(kinds))]
    head = "".join(_cell("th", f'{kind} scope="col"', c.heading) for kind, c in zip(kinds, table.columns, strict=True))
    rows = (
        "".join(_cell("td", kinds[i] + columns[i][place], cell) for i, cell in enumerate(row))
        for place, row in enumerate(table.rows)
    )
    body = "\n".join(f"<tr>{cells}</tr>" for cells in rows)
    kind = "sortable wide" if len(kinds) > BROAD else "sortable"
    return f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def leading_number(cell: str) -> float | None:
    """Return the number that a cell begins with, None where it begins with none: 8103.0 of `8,103 ± 12`."""
    found = NUMBER.match(cell)
    return float(found[0].replace(",", "")) if found else None


def _sorted_by(column: Sequence[str]) -> list[str]:
    """Return the attribute of each cell of a column that a page sorts it by: its number, or that it holds none.

    A column holds numbers where every cell that is not missing begins with one; else it is sorted as text.
    """
    found = {cell: leading_number(cell) for cell in column if cell not in MISSING}
    as_text = None in found.values()
    values = {cell: "" if as_text else f' data-value="{value:.17g}"' for cell, value in found.items()}
    return [values.get(cell, " data-missing") for cell in column]


def to_rich(table: Table, width: int) -> RichTable:
    """Return the table for a rich console of that width: no word is broken, and nothing is wider.

    The first and last column are never broken, unless they hold sentences or there is no room: the name of a row and
    its verdict. Where even words do not fit beside each other, a row becomes lines of heading and cell.
    """
    shown = [i for i, column in enumerate(table.columns) if width >= WIDE or not column.aside]
    room = width - GAP * (len(shown) - 1) - EDGES
    words = {i: max(_longest(cell) for cell in _cells(table, i)) for i in shown}
    cells = {i: max(map(cell_len, _cells(table, i))) for i in shown}
    ends = {0, len(table.columns) - 1} & set(shown)
    whole = words | {i: cells[i] for i in ends if not table.columns[i].sentences}
    least = whole if sum(whole.values()) <= room else words
    if sum(least.values()) > room:
        return _as_lines(table, shown, width)
    widths = _spread(least, cells, room)
    rendered = _frame(table)
    for i in shown:
        column = table.columns[i]
        justify: JustifyMethod = "right" if column.numeric else "left"
        rendered.add_column(Text(inert(column.heading)), justify=justify, width=widths[i])
    for row in table.rows:
        rendered.add_row(*(Text(inert(row[i]), style=_colour(table.columns[i], row[i])) for i in shown))
    return rendered


def _spread(least: Mapping[int, int], wanted: Mapping[int, int], room: int) -> dict[int, int]:
    """Return the widths of columns: at least what each needs, and the rest where most is wanted."""
    widths = dict(least)
    for _ in range(room - sum(widths.values())):
        narrowest = max(widths, key=lambda i: wanted[i] - widths[i])
        widths[narrowest] += wanted[narrowest] > widths[narrowest]
    return widths


def _as_lines(table: Table, shown: Sequence[int], width: int) -> RichTable:
    """Return the table with one line for each cell, and a rule between rows.

    Headings stand beside cells, or before them where a word of a cell would have to be broken.
    """
    headings = max(cell_len(inert(table.columns[i].heading)) for i in shown)
    beside = headings + max(_longest(cell) for i in shown for cell in _cells(table, i)) + GAP + EDGES <= width
    rendered = _frame(table)
    rendered.show_header = False
    if beside:
        rendered.add_column(width=headings)
    rendered.add_column()
    for row in table.rows:
        for i in shown:
            column, last = table.columns[i], i == shown[-1]
            cell = Text(inert(row[i]), style=_colour(column, row[i]))
            if beside:
                rendered.add_row(Text(inert(column.heading)), cell, end_section=last)
            else:
                rendered.add_row(Text(f"{inert(column.heading)}: ").append_text(cell), end_section=last)
    return rendered


def _frame(table: Table) -> RichTable:
    rendered = RichTable(
        title=Text(inert(table.title)) if table.title else None,
        caption=Text(inert(table.caption)) if table.caption else None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    rendered.title_justify = rendered.caption_justify = "left"
    return rendered


def _cells(table: Table, i: int) -> list[str]:
    return [inert(table.columns[i].heading), *(inert(row[i]) for row in table.rows)]


def _longest(text: str) -> int:
    return max((cell_len(word) for word in text.split()), default=1)


def _colour(column: Column, cell: str) -> str:
    return next((colour for words, colour in column.colours.items() if cell.startswith(words)), "")


def _cell(tag: str, facts: str, text: str) -> str:
    return f"<{tag}{facts}>{escape(inert(text))}</{tag}>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(in_markdown(cell).replace('|', chr(92) + '|') for cell in cells)} |"
