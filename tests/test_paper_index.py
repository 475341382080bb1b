"""The paper index names the source of every mechanism, and every paper that the code names."""

import inspect
import re

import pytest

from loopscale.halting import RULES
from loopscale.model.parts import SLOTS
from loopscale.objective import PENALTIES, SUPERVISIONS
from loopscale.train.depth_schedules import DEPTHS
from tests.workplace import ROOT

REGISTRIES = {**SLOTS, "supervision": SUPERVISIONS, "penalties": PENALTIES, "train.depth": DEPTHS, "halting": RULES}
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\b\d{4}\.\d{5}\b")


def rows(field):
    section = PAGE.partition(f"(`{field}`)\n")[2].partition("\n## ")[0]
    return {row.split("`")[1]: row for row in section.splitlines() if row.startswith("| `")}


@pytest.mark.parametrize("field", REGISTRIES)
def test_every_mechanism_has_its_row_and_every_row_its_mechanism(field):
    assert sorted(rows(field)) == sorted(REGISTRIES[field])


@pytest.mark.parametrize("field", REGISTRIES)
def test_a_row_names_the_papers_of_the_docstring(field):
    found = rows(field)
    for name, part in REGISTRIES[field].items():
        docstring = inspect.getdoc(part if inspect.isclass(part) else type(part)) or ""
        assert set(NUMBER.findall(docstring)) <= set(NUMBER.findall(found[name])), name


def test_every_paper_that_the_project_names_is_in_the_index():
    pages = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {number for page in pages for number in NUMBER.findall(page.read_text(encoding="utf-8"))}
    assert named - set(NUMBER.findall(PAGE)) == set()
