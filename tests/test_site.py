"""The documentation site: every page has its place, every link its target, and formulas are drawn without a script."""

import re
import tomllib
from pathlib import Path

import pytest

from docs.site.pages import ROOT, SITE, write_pages

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def entries(nav):
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [target] if isinstance(target, str) else entries(target)


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page):
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        if place.startswith(("http:", "https:", "mailto:")):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_anchor_is_there(page):
    assert list(broken(page)) == []


def test_every_page_has_its_place():
    nav = tomllib.loads((SITE / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    pages = {path.relative_to(ROOT).as_posix() for path in PAGES}
    assert set(entries(nav)) - {"examples", "reference"} == pages, "docs/site/zensical.toml lists the pages"


def test_the_pages_keep_their_links_and_hold_the_reference(tmp_path, monkeypatch):
    monkeypatch.setattr("docs.site.pages._help", lambda name: f"what {name} says")  # a process per command
    write_pages(tmp_path / "pages")
    pages = [path for path in (tmp_path / "pages").rglob("*.md") if "results" not in path.parts]
    assert {path.name: missing for path in pages if (missing := list(broken(path)))} == {}
    assert "::: loopscale.audit" in (tmp_path / "pages" / "reference" / "loopscale.audit.md").read_text(
        encoding="utf-8"
    )
    assert "what lens says" in (tmp_path / "pages" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert list(Path(tmp_path / "pages" / "examples").glob("*.md"))
    assert "[Footguns](footguns.md)" in (tmp_path / "pages" / "docs" / "start.md").read_text(encoding="utf-8")


def test_formulas_become_mathml():
    markdown = pytest.importorskip("markdown", reason="the extra docs is not installed: pip install -e '.[docs]'")
    from docs.site.mathml import Formulas

    text = "an $`s < \\sqrt{D}`$ and code `$x$`\n\n```math\nz_k = f(h_k)\n```\n"
    page = markdown.markdown(text, extensions=[Formulas(), "pymdownx.superfences"])
    assert page.count("<math ") == 2
    assert 'display="block"' in page and 'aria-label="z_k = f(h_k)"' in page
    assert "<code>$x$</code>" in page and "&lt;" in page
    assert "\\sqrt" not in re.sub(r'aria-label="[^"]*"', "", page)
