"""Every block of README and docs runs, in the order of its page."""

import contextlib
import re
import shutil
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from benchmarks.trials.table import BEGIN, END, table
from tests.helpers import made_once, shapes_unchecked
from tests.workplace import ROOT, build, names, run_block

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "bash", "text", "yaml", "json", "dockerfile", "math"}  # the last five are shown, not run
READER = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE),
        CodeBlockParser("bash", lambda example: run_block(example.parsed)),
    ],
    pattern="*.md",
)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    def make(folder):
        with pytest.MonkeyPatch.context() as patch, shapes_unchecked():
            patch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
            build(folder)

    return made_once(tmp_path_factory, "workplace", make)


@pytest.mark.filterwarnings("ignore::UserWarning")  # tiny models are warned of, rightly
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page, workplace, tmp_path, monkeypatch):
    here = shutil.copytree(workplace, tmp_path / "here", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(here)
    monkeypatch.setenv("LOOPSCALE_CACHE", str(workplace / "cache"))
    document = READER.parse(ROOT / page)
    document.namespace.update(names(here))
    for example in document.examples():
        with contextlib.suppress(SkipTest):  # the page says why beside the block
            example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page):
    fences = re.findall(r"^```(.*)$", Path(ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert LANGUAGES.issuperset(fences[::2]), page


def test_the_figures_of_the_trials_are_those_that_are_kept():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"{BEGIN}{table()}{END}" in page, "python -m benchmarks.trials.table writes them anew"


def test_every_room_is_in_the_plan_of_the_house():
    plan = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    house = ROOT / "src" / "loopscale"
    folders = {f"{path.parent.name}/" for path in house.glob("*/__init__.py")}
    files = {path.name for path in house.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert [room for room in sorted(folders | files) if f"{room} " not in plan] == []
