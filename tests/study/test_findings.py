"""The page of findings is what the committed results say, and every number links to a file that is there."""

import re
from pathlib import Path

import pytest

from benchmarks import findings
from loopscale.study import load, write_report

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page():
    return findings.page()


def test_the_page_is_the_one_that_the_results_make(page):
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == page, "python -m benchmarks.findings"


def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((\.\./results[^)]*)\)", page)
    assert len(links) > 50
    assert not [link for link in set(links) if not (ROOT / "docs" / link).exists()]


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
