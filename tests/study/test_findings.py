"""The findings are what the committed results say, and every number links to a file that is there."""

import re
from pathlib import Path

import matplotlib
import pytest

from benchmarks import findings
from benchmarks.findings.settings import CONTROLS, tally
from loopscale.study import load, write_report
from loopscale.study.topics.ways import ranking
from tests.study.test_committed_results import DRAWN_WITH, colours

ROOT = Path(__file__).parents[2]
WORDS = 2_000  # beside tables, that one reads in ten minutes


@pytest.fixture(scope="module")
def asked():
    return findings.asked()


@pytest.fixture(scope="module")
def made(asked):
    return findings.pages(asked)


@pytest.fixture
def settings(asked):
    return asked["settings"]


@pytest.mark.parametrize("name", findings.PAGES)
def test_a_page_is_the_one_that_the_results_make(made, name):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made[name], "python -m benchmarks.findings"


def test_the_figure_is_the_one_that_the_results_make(made):
    before, after = (ROOT / "docs" / findings.FIGURE).read_text(encoding="utf-8"), made[str(findings.FIGURE)]
    assert colours(after) == colours(before), "python -m benchmarks.findings"
    if matplotlib.__version__.startswith(f"{DRAWN_WITH}."):
        assert after == before, "python -m benchmarks.findings"


@pytest.mark.parametrize("name", findings.PAGES)
def test_every_link_leads_to_a_file(made, name):
    links = re.findall(r"\]\(([^)#]+)", made[name])
    assert len(links) > 50
    assert not [link for link in set(links) if not (ROOT / "docs" / link).exists()]


def test_the_findings_are_read_in_ten_minutes(made):
    shown = re.sub(r"\]\([^)]*\)", "]", made["findings.md"])
    assert len(re.findall(r"[\w.,×'`-]*\w[\w.,×'`-]*", re.sub(r"^\|.*$", "", shown, flags=re.M))) < WORDS


def test_a_setting_has_one_study_that_searched_its_rates_where_one_did(settings):
    assert len({setting.words for setting in settings}) == len(settings) > 10
    for setting in settings:
        assert {other.recipe[:3] for other in setting.others} <= {setting.study.recipe[:3]}
        assert setting.searched or not any(len(other.rates) > 1 for other in setting.others)


def test_a_control_is_worth_what_the_tables_of_the_ways_say(settings):
    of_ways = [setting for setting in settings if setting.study.is_of_ways]
    for setting in of_ways:
        found = ranking.entries(setting.study.results)
        for control, (way, _) in CONTROLS.items():
            assert setting.ratios(control) == ranking.over_blind(found, way)
    assert of_ways


def test_one_seed_decides_nothing(settings):
    alone = [setting for setting in settings if len(setting.ratios("raw readouts")) == 1]
    assert alone and "one seed" in alone[0].cell("raw readouts") and tally(alone, "raw readouts").endswith(" of 0")


def test_a_study_is_kept_without_what_no_table_needs(measured_study, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "RESULTS", tmp_path / "results")
    write_report(measured_study(conditions=("per_loop-rmsnorm",)), tmp_path / "run")
    findings.keep(tmp_path / "run", "mine")
    kept = tmp_path / "results" / "mine"
    assert not list(kept.glob("**/*.png")) and not (kept / "report.html").exists()
    for table in (tmp_path / "run" / "tables").iterdir():
        assert (kept / "tables" / table.name).read_text() == table.read_text()
    (run,) = load(kept / "results.json").all_runs
    assert all(set(line) <= {"step", "loss", "loop_norms/4"} for line in run.measured["history"])
