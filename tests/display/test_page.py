"""A page is one inert file: whatever text it holds is shown, and nothing else runs or is asked for."""

import base64
import hashlib
import json
import math
import re

import pytest

from loopscale.display import Axis, Chart, Column, Panel, Series, Style, Table, to_html
from loopscale.display.page import PageFigure, render
from loopscale.display.page.values import chart_data, in_words, values_table
from loopscale.display.table import leading_number

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 7*70007 }}",
    "a\nb",
    "\x1b[2J",
    "\u202egnp",
]
TEMPLATE = """{% extends "frame.html.j2" %}
{% import "parts.html.j2" as parts with context %}
{% block main %}<h1>{{ name }}</h1>{{ parts.figure_box(figure) }}{{ parts.table_box(table) }}
{{ parts.mapping(name, {name: name}) }}{{ parts.document(name, name) }}
{{ parts.facts([(name, name)]) }}{% endblock %}"""


def chart(name="a", y=(1.0, 2.0, 1e30), **facts):
    series = Series(name, (1, 2, 3), y, Style("#D55E00"), notes=(name,) * 3)
    return Chart((Panel(Axis(name), Axis(name, end=10.0), (series,), **facts),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("page")
    (path / "own.html.j2").write_text(TEMPLATE)
    return path


def page(folder, name):
    table = Table(name, name, name, (Column(name), Column(name, numeric=True)), ((name, "1"),))
    return render("own.html.j2", folder, name=name, figure=PageFigure("figure", name, name, chart(name)), table=table)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_everywhere(folder, name):
    html = page(folder, name)
    assert html.count("<script") == 2 == html.count("</script>") and "<img" not in html and "490049" not in html
    assert "\x1b" not in html and "\u202e" not in html and "http" not in html.replace("http-equiv", "")
    data = json.loads(re.search(r'class="data">(.*?)</script>', html).group(1))
    assert data["names"] == [name] and data["panels"][0]["series"][0]["notes"] == [name] * 3


def test_only_its_own_style_and_script_may_run(folder):
    html = page(folder, "a")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1).replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy and not re.search(r"<[^>]* (style|on\w+)=", html)
    for tag in ("style", "script"):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_figure_is_readable_without_a_script(folder):
    html = page(folder, "a")
    assert html.count('class="drawing wide"') == 1 == html.count('class="drawing narrow"')
    assert 'aria-label="a. Chart of a over a. At the end: a 1.00e30."' in html
    assert "Arrows: beyond the axis, a at 1 point, up to 1.00e30." in html
    assert html.count("mark arrow") == 2


def test_hover_data_are_the_points_that_can_be_drawn():
    (panel,) = chart_data(chart(y=(1.0, math.nan, 1e30)))["panels"]
    assert panel["series"][0]["x"] == [1.0, None, None] and panel["series"][0]["y"] == [1.0, None, 1e30]
    json.dumps(panel, allow_nan=False)


def test_values_are_a_table_across_or_one_by_one():
    (across,) = values_table(chart(across=True))
    assert across.rows == (("a", "1.000", "2.000", "1.00e30"),)
    (each,) = values_table(chart())
    assert each.rows[0] == ("a", "a", "1.000", "1.000") and len(each.rows) == 3
    assert in_words(chart()).startswith("Chart of a over a.")


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("8,103 ± 12", 8103),
        ("-0.5 [-1, 2]", -0.5),
        ("2.10e26", 2.1e26),
        ("30%", 30),
        ("+1", 1),
        ("–", None),
        ("x1", None),
    ],
)
def test_a_cell_is_sorted_by_its_number(cell, number):
    assert leading_number(cell) == number


def test_columns_of_numbers_sort_as_such_and_others_as_text():
    columns = Column("name"), Column("n", numeric=True), Column("mixed")
    html = to_html(Table("t", "", "", columns, (("b", "1,000", "1"), ("a", "–", "x"), ("–", "not finite", "2"))))
    assert html.count("data-value") == 1 and 'data-value="1000"' in html and html.count("data-missing") == 3
