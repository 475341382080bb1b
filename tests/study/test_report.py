import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from loopscale.errors import InputError
from loopscale.study import TOPICS, judged, render, report_command, write_report
from loopscale.study.report import advice, sentences

FIGURES = ("norm-by-depth", "perplexity-by-depth", "useful-band")  # of a study without measurements


class Page(HTMLParser):
    """Collects what a page opens, closes and points to."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href") and not v.startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_everything_is_written(study, tmp_path):
    write_report(study(seeds=(1, 2, 3)), tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "results.json",
        "report.html",
        *(
            f"tables/{name}.md"
            for name in ("table-1", "norms", "claims", "beside-the-paper", "looping", "inter-loop-norm")
        ),
        *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
    }


def test_the_page_is_whole_and_needs_nothing_else(study, tmp_path):
    write_report(study(seeds=(1, 2)), tmp_path)
    shown, source = page(tmp_path), (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not shown.open and shown.links == ["data:,"]
    assert source.count("<figure ") == 3 and "default-src 'none'" in source
    assert "http" not in source.replace("http-equiv", "")
    text = " ".join(shown.text)
    for part in (
        "84.21 ± ",
        "does not hold",
        "lower-perplexity-raw",
        "0" * 64,
        "per_loop-final_rmsnorm",
        "steps",
    ):
        assert part in text


def test_the_page_goes_from_the_answer_to_the_measurements(measured_study, tmp_path):
    results = write_report(measured_study(), tmp_path)
    shown, text = page(tmp_path), (tmp_path / "report.html").read_text(encoding="utf-8")
    drawn = [figure.name for topic in TOPICS for figure in topic.figures if figure.draw(results) is not None]
    assert not shown.open and text.count("<figure ") == len(drawn) and "rates" not in drawn  # of a single rate
    heads = (
        f"<h1>{advice(results).headline}",
        "Which control?",
        *(f"<h2{h}" for h in (">Claims", ' id="words">What', ">Table 1", ">Norms", ">Audit", ">Depth", ">How it")),
    )
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    assert {path.stem for path in (tmp_path / "tables").iterdir()} >= {"audit", "depth", "halting", "safe-range"}
    assert "exit 1 of per_loop-rmsnorm has 1.105 times the perplexity of its last exit" in text
    assert "ends at a mean norm of 800.0, against 9.500 in per_loop-raw" in text
    assert "the audit finds its scale a blind spot" in text
    assert "1.105 in per_loop-rmsnorm-penalty, 1.000 in per_loop-rmsnorm-normed; one seed decides only what" in text
    assert "it does not pay at all in" not in text and "looping stops to pay at exit 2 in per_loop-rmsnorm" in text
    assert text.count("<summary>") == text.count("<figure ") + 4 and "what each condition changes" in text


def test_sentences_without_their_runs_are_left_out(study, diverge):
    assert sentences(study(conditions=())) == []
    assert [s.split(":")[0] for s in sentences(study(conditions=("terminal-rmsnorm",)))] == ["The exits"]
    lost = sentences(diverge(study(), "per_loop-rmsnorm"))
    assert len(lost) == 2 and "terminal-rmsnorm" in lost[0] and "per_loop" not in lost[0]
    assert lost[1].startswith("The loops: looping stops to pay at exit") and " in per_loop-rmsnorm (" not in lost[1]


def test_what_the_document_holds_is_escaped(study, tmp_path):
    write_report(study(conditions=()), tmp_path)
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    document["corpus"]["name"] = "<script>alert(1)</script>"
    document["config"] = {"\x1b[31m": "\udcff\u202e"}
    (tmp_path / "results.json").write_text(json.dumps(document), encoding="utf-8")
    report_command(tmp_path)
    scripts, source = page(tmp_path).tags.count("script"), (tmp_path / "report.html").read_text(encoding="utf-8")
    assert scripts == 1 and "&lt;script&gt;alert(1)" in source
    assert not {"\x1b", "\udcff", "\u202e"} & set(source)


@pytest.mark.parametrize("conditions", [(), ("terminal-raw",), ("per_loop-rmsnorm", "per_loop-raw")])
def test_an_unfinished_study_has_a_report(study, tmp_path, conditions):
    results = write_report(study(conditions=conditions), tmp_path)
    assert not page(tmp_path).open
    render(Console(file=io.StringIO(), width=80), results)


def test_a_diverged_run_is_shown(study, diverge, tmp_path):
    write_report(diverge(study(), "per_loop-raw"), tmp_path)
    text = " ".join(page(tmp_path).text)
    assert "1 (1 diverged)" in text and "per_loop-raw diverged with seed 1." in text


def test_render_prints_table_one_and_the_claims(study):
    file = io.StringIO()
    render(Console(file=file, width=100), study())
    text = file.getvalue()
    assert "Table 1" in text and "8,103" in text and "norm-ratio-raw" in text and "84.21×" in text


def test_the_last_words_are_the_answer_with_what_was_not_decided(study, tmp_path):
    file = io.StringIO()
    render(Console(file=file, width=4000), study(), tmp_path / "report.html")
    *_, page, exits, scale, remedies, loops, claims, advised = file.getvalue().splitlines()
    assert page == f"report: {tmp_path / 'report.html'}"
    assert [line.split(":")[0] for line in (exits, scale, loops, remedies)] == [
        "The exits",
        "The scale",
        "The loops",
        "The remedies",
    ]
    assert advised == f"{advice(judged(study())).headline}"
    assert "1 does not hold (keeps-improving-rmsnorm)" in claims and "are not decided (lower-perplexity-raw, " in claims
    file = io.StringIO()
    render(Console(file=file, width=400), study(conditions=()))
    assert "The claims" not in file.getvalue() and "norm-ratio-raw" not in file.getvalue()


def test_the_report_is_made_anew_from_the_file(study, tmp_path, capsys):
    write_report(study(conditions=("per_loop-raw",), seeds=(1, 2)), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "report.html").unlink()
    report_command(tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "Table 1" in capsys.readouterr().out


def test_a_folder_without_results_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no results at"):
        report_command(tmp_path)


def test_a_study_of_another_grid_has_no_empty_claims(study, tmp_path):
    base = study(conditions=("per_loop-rmsnorm",))
    results = write_report(replace(base, conditions={"readout=raw": base.conditions["per_loop-rmsnorm"]}), tmp_path)
    assert results.claims and not (tmp_path / "tables" / "claims.md").exists()
    assert "not tested here" not in (tmp_path / "report.html").read_text(encoding="utf-8")
