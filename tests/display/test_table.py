import io
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loopscale.display import Column, Table, to_html, to_markdown

HOSTILE = [
    "[/]",
    "[bold red]x[/bold red]",
    "<script>alert(1)</script>",
    "a\nb",
    "\x1b[31mred",
    "x|y",
    "[a](b:c)",
    "`c`",
]


def table(*cells, **facts):
    columns = tuple(Column(f"column {i}", **facts) for i in range(len(cells)))
    return Table("t", "Title", "Caption.", columns, (cells,))


def printed(shown, width=160):
    text = io.StringIO()
    Console(width=width, file=text, force_terminal=True, color_system="truecolor").print(shown)
    return text.getvalue()


class Cells(HTMLParser):
    """Collects the tags and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_a_bar_in_a_cell_does_not_split_it():
    shown = Table("t", "T", "c", (Column("a"), Column("b", numeric=True)), (("x|y", "1"),))
    assert to_markdown(shown).splitlines() == ["# T", "", "c", "", "| a | b |", "| --- | ---: |", "| x\\|y | 1 |"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_everywhere(name):
    shown = Table("t", name, name, (Column(name), Column("b")), ((name, "end"),))
    lines = to_markdown(shown).splitlines()
    assert len(lines) == 7 and "<script" not in "\n".join(lines) and "](" not in "\n".join(lines)
    page = Cells(to_html(shown))
    assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    spelled = name.replace("\n", " ").replace("\x1b", "\\x1b")
    assert spelled in page.text
    out = printed(shown)
    assert spelled in out and "\x1b[31mred" not in out


@given(st.text(max_size=20))
def test_any_name_is_one_row(name):
    assert len(to_markdown(table(name, "end")).splitlines()) == 7
    assert to_html(table(name, "end")).count("<tr>") == 2
    printed(table(name, "end"))


def test_colours_go_by_the_words_of_a_cell():
    shown = Table("t", "", "", (Column("a"), Column("verdict", colours={"holds": "green"})), (("x", "holds"),))
    assert "\x1b[32mholds" in printed(shown)
    assert "\x1b[32m" not in printed(Table("t", "", "", shown.columns, (("x", "does not"),)))


def test_what_is_aside_is_shown_where_there_is_room():
    shown = Table("t", "", "", (Column("a"), Column("statement", aside=True), Column("v")), (("x", "words", "y"),))
    assert "words" in printed(shown, 160) and "words" not in printed(shown, 100)


def test_sentences_are_broken_so_that_the_rest_stays():
    columns = (Column("name"), Column("remedy", sentences=True))
    out = printed(Table("t", "", "", columns, (("scale", "penalise it " * 20),)), 60)
    assert "scale" in out and len(out.splitlines()) > 6


SENTENCE = "the scale of the state after the last loop grows with the width of an extraordinarily-long-hyphenated-word"


@pytest.mark.parametrize("width", [40, 80, 100, 160])
@pytest.mark.parametrize("columns", [2, 4, 7, 12])
@pytest.mark.parametrize("sentences", [False, True])
def test_nothing_is_wider_than_the_terminal_and_no_word_is_broken(width, columns, sentences):
    facts = [
        Column(f"learning rate {i}", numeric=i % 2 == 1, sentences=sentences and i == columns - 1)
        for i in range(columns)
    ]
    cells = ["per_loop-rmsnorm-penalty", *(f"{10**i:,} ± 0.{i}" for i in range(columns - 2)), SENTENCE]
    text = io.StringIO()
    Console(width=width, file=text).print(
        Table("t", "A title", "A caption.", tuple(facts), (tuple(cells), tuple(cells)))
    )
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = {word for cell in [*cells, *(column.heading for column in facts)] for word in cell.split()}
    printed_words = {word for line in lines for word in line.split()}
    longest = max(map(len, words))
    if longest + 16 <= width:  # beside the headings there is no room for it otherwise
        assert words <= printed_words


WORDS = st.text(st.sampled_from("abc±"), min_size=1, max_size=9)
CELLS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
ROWS = st.integers(1, 7).flatmap(lambda n: st.lists(st.tuples(*[CELLS] * n), min_size=1, max_size=3))


@given(ROWS, st.integers(24, 90), st.booleans())
def test_no_word_is_broken_and_no_line_is_too_long(rows, width, numeric):
    columns = tuple(Column(f"head{i} of", numeric=numeric) for i in range(len(rows[0])))
    text = io.StringIO()
    Console(width=width, file=text).print(Table("t", "", "", columns, tuple(rows)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert {word for row in rows for cell in row for word in cell.split()} <= set(text.getvalue().split())


def test_a_long_name_in_a_narrow_terminal_stands_on_a_line_of_its_own():
    name = "a-condition-with-a-name-that-is-long@0.003"
    shown = Table("t", "", "", (Column("condition"), Column("a rather long heading", numeric=True)), ((name, "1"),))
    text = io.StringIO()
    Console(width=48, file=text).print(shown)
    assert name in text.getvalue().split() and "heading: 1" in text.getvalue()
