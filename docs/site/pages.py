"""Pages of the site: a copy of the project's Markdown in its own layout, so that every link stays as it is written.

Beside them come what they link to, a page per example, and the reference of every public package and command.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
TOP = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
NAMED = re.compile(r"\[([\w./-]+\.md)\]\(([^)#\s]+\.md)")  # links called as their file: on the site as their page
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def write_pages(folder: Path) -> None:
    """Write all that the site is built from into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TOP:
        shutil.copy(ROOT / name, folder)
    for page in (ROOT / "docs").glob("*.md"):
        _copy(page, folder)
    for name in ("docs/figures", "results", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(SITE / "assets", folder / "assets")
    for table in (folder / "results").rglob("*.md"):
        table.write_text(UNSEARCHED + _titled(table), encoding="utf-8")
    _write(folder / "examples", dict(examples()))
    for template in sorted((ROOT / "examples").glob("*.sbatch")):  # is downloaded as it is
        shutil.copy(template, folder / "examples")
    _write(folder / "reference", {**dict(packages()), "commands": commands()})
    _index_folders(folder)
    for page in folder.rglob("*.md"):
        _lead_to_pages(page)


def examples() -> Iterator[tuple[str, str]]:
    """Yield the name and the page of every example: its own first words, then the whole of it."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        title = path.stem.replace("_", " ").capitalize()
        yield path.stem, f"# {title}\n\n`python examples/{path.name}`\n\n```python\n{code}```\n"


def packages() -> Iterator[tuple[str, str]]:
    """Yield the name and the page of every package with public names; mkdocstrings fills them in."""
    source = ROOT / "src"
    for init in sorted((source / "loopscale").rglob("__init__.py")):
        if "__all__" in init.read_text(encoding="utf-8"):
            name = ".".join(init.parent.relative_to(source).parts)
            yield name, f"# {name}\n\n::: {name}\n"


def commands() -> str:
    """Return the page of the command line: what every command says of itself."""
    from loopscale.cli.main import COMMANDS, usage

    text = "# Commands\n\nExit status: 0 done, 2 bad input, 3 a blind spot (`audit`) or an unsteady loop (`check`).\n\n"
    text += f"```text\n{usage().strip()}\n```\n"
    for name in COMMANDS:
        text += f"\n## loopscale {name}\n\n```text\n{_help(name)}\n```\n"
    return text


def _help(name: str) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "loopscale", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    return said.stdout.strip()


def _copy(page: Path, folder: Path) -> None:
    target = folder / page.relative_to(ROOT)
    target.parent.mkdir(exist_ok=True)
    shutil.copy(page, target)


def _write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _titled(table: Path) -> str:
    text = table.read_text(encoding="utf-8")
    return text if text.startswith("# ") else f"# {table.parents[1].name}: {table.stem.replace('-', ' ')}\n\n{text}"


def _index_folders(folder: Path) -> None:
    """Give every folder that a link may name a page that lists it."""
    for place in [folder / "configs", *(path for path in (folder / "results").rglob("*") if path.is_dir())]:
        inside = sorted(path for path in place.iterdir() if path.name != "index.md")
        lines = [f"- [{path.name}]({path.name}{'/index.md' if path.is_dir() else ''})\n" for path in inside]
        (place / "index.md").write_text(f"{UNSEARCHED}# {place.relative_to(folder)}\n\n{''.join(lines)}", "utf-8")


def _lead_to_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    text = NAMED.sub(lambda link: f"[{_title(page.parent / link[2]) or link[1]}]({link[2]}", text)
    page.write_text(LINK.sub(lambda link: _to_page(page, link[0]), text), encoding="utf-8")


def _title(page: Path) -> str | None:
    """Return the heading of a page."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), None)


def _to_page(page: Path, link: str) -> str:
    """Return a link that is written to a folder or an example as one to its page."""
    target = page.parent / link
    if link.startswith(("http:", "https:", "mailto:")):
        return link
    if target.is_dir():
        name = "README.md" if (target / "README.md").exists() else "index.md"
        return f"{link.rstrip('/')}/{name}" if (target / name).exists() else link
    if link.endswith(".py") and target.with_suffix(".md").exists():
        return link.removesuffix(".py") + ".md"
    return link
