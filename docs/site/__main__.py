"""Build of the documentation site: `python -m docs.site` writes build/site, and any warning is an error."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site.browser import browser, faults
from docs.site.pages import ROOT, SITE, write_pages

BUILD = ROOT / "build"
SHIM = "https://unpkg.com/iframe-worker/shim"  # what Zensical asks for where a page is opened from disk
FOLDER = re.compile(r'^(\s*\{ "[^"]+" = )"(examples|reference)"', re.MULTILINE)
WARNINGS = re.compile(r"^(griffe|mkdocstrings|autorefs): .*", re.MULTILINE)  # that --strict does not count


def main() -> int:
    """Write the pages, let Zensical build them, and look at them in a browser. Return the exit status."""
    write_pages(BUILD / "pages")
    settings = (SITE / "zensical.toml").read_text(encoding="utf-8")
    (BUILD / "zensical.toml").write_text(FOLDER.sub(_listed, settings), encoding="utf-8")
    site = BUILD / "site"
    shutil.rmtree(site, ignore_errors=True)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "PYTHONPATH": paths}
    built = subprocess.run(command, cwd=BUILD, env=environment, capture_output=True, text=True, check=False)
    said = built.stdout + built.stderr
    print(said.strip())
    if built.returncode or WARNINGS.search(said):
        return built.returncode or 1
    pages = list(site.rglob("*.html"))
    for page in pages:
        _keep_here(page)
    print(f"{len(pages)} pages: {site / 'index.html'}")
    return _look(site)


def _look(site: Path) -> int:
    program = browser()
    if program is None:
        print("not looked at in a browser: there is no Chromium or Chrome here")
        return 0
    wrong = faults(site, program)
    print("\n".join(wrong) or "in a browser, wide and narrow: nothing asked of other servers, no error, no overflow")
    return int(bool(wrong))


def _listed(entry: re.Match[str]) -> str:
    """Return an entry of the navigation that is a folder as the list of its pages."""
    pages = sorted((BUILD / "pages" / entry[2]).glob("*.md"))
    return entry[1] + "[" + ", ".join(f'"{entry[2]}/{page.name}"' for page in pages) + "]"


def _keep_here(page: Path) -> None:
    """Let a page take its script from the site."""
    text = page.read_text(encoding="utf-8")
    here = os.path.relpath(BUILD / "site" / "assets" / "search-from-disk.js", page.parent).replace(os.sep, "/")
    page.write_text(text.replace(SHIM, here), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
