"""The committed study, drawn again: whatever is moved inside the library, its document says the same."""

import json
import re
from collections import Counter
from html import escape
from pathlib import Path

import matplotlib
import pytest

from loopscale.study import load, save, write_report

COMMITTED = Path(__file__).parents[2] / "results" / "laptop-cpu"
DRAWN_WITH = "3.11"  # the matplotlib of the committed figures; another one may place a stroke elsewhere


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    out = tmp_path_factory.mktemp("again")
    write_report(load(COMMITTED / "results.json"), out)
    return out


def names(folder, pattern):
    return sorted(path.name for path in folder.glob(pattern))


def test_tables_are_the_same_byte_for_byte(again):
    assert names(again / "tables", "*") == names(COMMITTED / "tables", "*")
    for path in (COMMITTED / "tables").iterdir():
        assert (again / "tables" / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), path.name


def test_nothing_of_the_document_is_lost_when_it_is_written_back(again, tmp_path):
    before, after = (json.loads((place / "results.json").read_bytes()) for place in (COMMITTED, again))
    assert lost(before, after) == []
    save(load(COMMITTED / "results.json"), tmp_path / "results.json")
    save(load(tmp_path / "results.json"), tmp_path / "twice.json")
    assert (tmp_path / "twice.json").read_bytes() == (tmp_path / "results.json").read_bytes()


def test_figures_are_the_same(again):
    assert names(again / "figures", "*") == names(COMMITTED / "figures", "*")
    for path in (COMMITTED / "figures").glob("*.svg"):
        before, after = path.read_text(encoding="utf-8"), (again / "figures" / path.name).read_text(encoding="utf-8")
        assert colours(after) == colours(before), path.name
        if matplotlib.__version__.startswith(f"{DRAWN_WITH}."):
            assert after == before, path.name


def test_the_page_holds_every_table_and_figure(again):
    page = (again / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure ") == len(names(COMMITTED / "figures", "*.svg"))
    assert page.count('<table class="sortable') >= len(names(COMMITTED / "tables", "*"))
    assert not [path.stem for path in (again / "tables").iterdir() if heading(path) not in page]


def heading(path):
    return escape(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def lost(before, after, place=""):
    """Return the places of a document whose value another one lacks; it may have more keys."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = [f"{place}.{key}" for key in before.keys() - after.keys()]
        return missing + [
            x for key in before.keys() & after.keys() for x in lost(before[key], after[key], f"{place}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [x for i, (a, b) in enumerate(zip(before, after, strict=True)) for x in lost(a, b, f"{place}[{i}]")]
    return [] if before == after else [place]


def colours(svg):
    """Return how often every colour is drawn with: what a figure shows, wherever its strokes lie."""
    return Counter(re.findall(r"#[0-9a-f]{6}", svg))
