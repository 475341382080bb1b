"""Pages in a real browser: narrow and wide, light and dark, on paper, without scripts, and made of hostile names."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loopscale.lens import look, write_page
from loopscale.study import judged, load
from loopscale.study.report.page_content import page, page_sections
from tests.helpers import tiny_model

api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: install it to test the pages")
NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: install one, or name it by CHROMIUM")

COMMITTED = Path(__file__).parents[2] / "results" / "laptop-cpu" / "results.json"
HOSTILE = '</script><img src=x onerror="document.title=1">\n\x1b[2J{{ 7 }}" onclick="a()"'
WIDE, NARROW, PAPER = 1280, 390, 703  # the last: A4 less its margins


class Letters:
    def decode(self, ids):
        return [HOSTILE, *"abcdefghijklmnopqrstuvwxy"][ids[0]]

    def convert_ids_to_tokens(self, token):
        return self.decode([token])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the committed study's report, the same under hostile names, and a lens."""
    made = tmp_path_factory.mktemp("pages")
    results = judged(load(COMMITTED))
    hostile = replace(
        results,
        preset=HOSTILE,
        corpus={**results.corpus, "name": HOSTILE},
        environment={HOSTILE: HOSTILE},
        config={HOSTILE: HOSTILE},
        conditions={f"{HOSTILE}{i}": condition for i, condition in enumerate(results.conditions.values())},
    )
    for name, study in (("report", results), ("hostile", hostile)):
        (made / f"{name}.html").write_text(page(study, page_sections(study)), encoding="utf-8")
    torch.manual_seed(0)
    write_page(look(tiny_model(vocab_size=26), torch.arange(26), Letters()), made / "lens.html", HOSTILE)
    return made


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, folder):
    """Return a context manager that opens a page, and afterwards finds that it asked for nothing and told no error."""

    @contextmanager
    def look_at(name, width=WIDE, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        shown, faults = context.new_page(), []
        shown.on("console", lambda message: faults.append(message.text))
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
        shown.on("dialog", lambda dialog: faults.append(dialog.message))
        shown.goto((folder / f"{name}.html").as_uri())
        yield shown
        assert faults == []
        context.close()

    return look_at


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *(("report", width, scheme) for width in (WIDE, NARROW) for scheme in ("light", "dark")),
        *((name, *screen) for name in ("hostile", "lens") for screen in ((WIDE, "dark"), (NARROW, "light"))),
    ],
)
def test_a_page_fits_its_screen_and_asks_for_nothing(opened, name, width, scheme):
    with opened(name, width, scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        lightness = shown.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        assert (lightness < 50) == (scheme == "dark")
        figures = shown.locator("figure.chart")
        for figure in figures.all():
            assert figure.locator("svg.drawing:visible .series").count() > 0
        assert figures.count() == (0 if name == "lens" else 9)


def test_hostile_names_stay_text(opened):
    for name in ("hostile", "lens"):
        with opened(name) as shown:
            assert shown.locator("img").count() == 0 and shown.locator("[onclick]").count() == 0
            assert shown.title() != "1" and "onerror" in shown.content() and "{{ 7 }}" in shown.inner_text("body")
            data = "script[type='application/json']"
            assert shown.locator("script").count() == 1 + shown.locator(data).count()


def test_tables_sort_up_down_and_back_with_what_is_missing_last(opened):
    with opened("report") as shown:
        table = shown.locator("#exits table, [aria-label^='Beside'] table").last
        heading = table.locator("th").last

        def column():
            return table.locator("tbody td:last-child").all_inner_texts()

        first = column()
        assert "–" in first and heading.get_attribute("aria-sort") == "none"
        known = [text for text in first if text != "–"]
        heading.locator("button").click()
        ascending = column()
        heading.locator("button").click()
        descending = column()
        assert ascending[-1] == descending[-1] == "–" and ascending[:-1] == descending[-2::-1]
        assert sorted(ascending[:-1]) == sorted(known) and heading.get_attribute("aria-sort") == "descending"
        heading.locator("button").click()
        assert column() == first
        numbers = shown.locator("#exits table").first
        numbers.locator("th").nth(1).locator("button").click()
        values = [
            float(text) for text in numbers.locator("td:nth-child(2)").evaluate_all("e => e.map(x => x.dataset.value)")
        ]
        assert len(values) == 8 and values == sorted(values) and max(values) > 1e6


def test_hover_tells_values_and_the_legend_hides_lines(opened):
    with opened("report") as shown:
        figure = shown.locator("#norm-by-depth")
        figure.scroll_into_view_if_needed()
        box = figure.locator("svg.wide").bounding_box()
        tip = figure.locator(".tip")
        assert not tip.is_visible()

        def told():
            shown.mouse.move(box["x"] + box["width"] * 0.36, box["y"] + box["height"] / 2)
            assert tip.is_visible()
            words = tip.inner_text()
            shown.mouse.move(0, 0)
            return words

        words = told()
        assert "loop k\n4" in words and "per_loop-rmsnorm\n1,059" in words
        button = figure.get_by_role("button", name="per_loop-rmsnorm", exact=True)
        button.click()
        line = figure.locator(f"svg.wide .series[data-name='{button.get_attribute('data-name')}']")
        assert not line.is_visible() and button.get_attribute("aria-pressed") == "false"
        assert "per_loop-rmsnorm\n" not in told()
        button.click()
        assert line.is_visible() and not tip.is_visible()
        plane = shown.locator("#visibility-retention")
        plane.scroll_into_view_if_needed()
        point = plane.locator("svg.wide .mark").first.bounding_box()
        shown.mouse.move(point["x"] + 3, point["y"] + 3)
        assert "seed 42: blind spot" in plane.locator(".tip").inner_text()


def test_the_theme_is_chosen(opened):
    with opened("report") as shown:
        colour = "getComputedStyle(document.body).backgroundColor"
        before = shown.evaluate(colour)
        shown.click("#theme")
        assert shown.evaluate(colour) != before
        shown.click("#theme")
        assert shown.evaluate(colour) == before


def test_paper_holds_every_column_in_light(opened):
    with opened("report", PAPER, "dark") as shown:
        shown.emulate_media(media="print")
        upright = "[...document.querySelectorAll('.scroll:not(:has(.wide))')].filter(e => e.offsetParent)"
        assert shown.evaluate(f"{upright}.filter(e => e.scrollWidth > document.body.clientWidth).length") == 0
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.evaluate("[...document.querySelectorAll('#measured pre')].every(e => e.checkVisibility())")
        assert not shown.locator("#theme").is_visible()


def test_without_a_script_it_is_readable(opened):
    with opened("report", java_script_enabled=False) as shown:
        assert shown.locator("figure svg.wide:visible").count() >= 9
        assert shown.locator("h1").inner_text().startswith("Use ")
        assert "1,059" in shown.locator("#exits table").first.inner_text()


def test_the_lens_follows_the_pointer_and_the_keys(opened):
    with opened("lens") as shown:
        shown.locator("#t3").click()
        assert shown.inner_text("#chosen") == "c"
        shown.keyboard.press("ArrowRight")
        assert shown.inner_text("#chosen") == "d" and shown.locator("#exits section").count() == 3
        assert shown.locator("#loops tbody tr").count() == 3
