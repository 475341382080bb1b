"""The built site in a browser: no page asks another server, complains in the console, or is wider than the screen."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

WIDTHS, SOME = (1280, 390), 6
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def faults(site: Path, program: str) -> list[str]:
    """Open the pages from a local server, narrow and wide, and some from disk; search in one. Return what is wrong."""
    from playwright.sync_api import sync_playwright

    places = sorted(path.relative_to(site) for path in site.rglob("*.html"))
    names = [place.as_posix() for place in places if place.parts[0] not in ("404.html", "results")]
    some = [*names[:: len(names) // SOME], "results/index.html"]
    found = list[str]()
    with _server(site) as served, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width in WIDTHS:
            for base, chosen in ((served, names), (f"{site.as_uri()}/", some)):
                page = chromium.new_page(viewport={"width": width, "height": 900})
                _listen(page, base, found)
                for name in chosen:
                    found += _look(page, base + name, width)
                found += _search(page, base + names[0])
                page.close()
        chromium.close()
    return found


def _listen(page: Any, base: str, found: list[str]) -> None:
    def asked(request: Any) -> None:
        if not request.url.startswith((base, "data:", "blob:")):
            found.append(f"{page.url} asks for {request.url}")

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            found.append(f"{page.url}: {message.text}")

    page.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))


def _look(page: Any, url: str, width: int) -> list[str]:
    page.goto(url, wait_until="load")
    beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [f"{url} is {beyond} pixels wider than {width}"] if beyond > 0 else []


def _search(page: Any, url: str) -> list[str]:
    page.goto(url, wait_until="load")
    page.wait_for_timeout(1000)  # the index
    page.keyboard.press("Control+k")
    page.wait_for_timeout(500)
    page.keyboard.type("retention", delay=50)
    try:
        page.wait_for_function(
            "[...document.querySelectorAll('*')].some(e => /\\d results/.test(e.shadowRoot?.textContent))"
        )
    except Exception as error:
        return [f"{url}: the search finds nothing ({type(error).__name__})"]
    return []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


@contextmanager
def _server(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
