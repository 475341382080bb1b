"""Studies of one configuration become one; any other is refused by what differs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from loopscale.errors import InputError
from loopscale.study import load, report_command, write_report
from loopscale.study.report import merged

CORPUS = {"name": "invented", "sha256": "0" * 64, "tokenizer": "bytes", "vocab_size": 256}


@pytest.fixture
def pair(study, tmp_path):
    """Return the folders of two studies, of one machine each, which share seed 2."""
    environments = ({"cpu": "a", "python": "3"}, {"cpu": "b", "python": "3"})
    made = (study(seeds=(1, 2)), study(conditions=("per_loop-raw", "per_loop-rmsnorm"), seeds=(2, 3)))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, results, environment in zip(folders, made, environments, strict=True):
        write_report(replace(results, environment=environment), folder)
    return folders


def test_seeds_and_conditions_come_together(pair, tmp_path, capsys):
    report_command(*pair, out=tmp_path / "both", latex=True)
    results = load(tmp_path / "both" / "results.json")
    assert [run.seed for run in results.runs("per_loop-raw")] == [1, 2, 3]
    assert [run.seed for run in results.runs("terminal-raw")] == [1, 2]
    assert results.runs("per_loop-raw")[2].checkpoint == "../two/per_loop-raw/seed-3"
    assert results.environment == {"cpu": ["a", "b"], "python": "3"}
    one, two = results.extra["studies"]
    assert (one["name"], two["name"]) == ("one", "two") and two["environment"]["cpu"] == "b"
    said = "two: per_loop-raw/seed-2, per_loop-rmsnorm/seed-2 left out, the same seed stands in a study before."
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert said in capsys.readouterr().out and said in page and "compare no speeds" in page
    assert "the environment of two" in page
    latex = tmp_path / "both" / "latex"
    assert {path.name for path in latex.iterdir()} == {"table-1.tex", "claims.tex"}
    assert "% norm-ratio-raw: Behind RMSNorm" in (latex / "claims.tex").read_text(encoding="utf-8")
    report_command(*pair, out=tmp_path / "both")  # a merged report may be written again


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"corpus": {"name": "x", "sha256": "1" * 64, "tokenizer": "bytes", "vocab_size": 256}},
            "corpus.sha256 is 000",
        ),
        ({"config": {"train": {"max_steps": 20}}}, "train.max_steps is None in the first and 20 in the other"),
        ({"config": {"init_from": "elsewhere"}}, "init_from is None in the first"),
        ({"num_loops": 3}, "num_loops is 4 in the first and 3"),
    ],
)
def test_what_is_no_one_study_is_refused_by_what_differs(study, changed, said):
    first = study(config={"train": {}})
    with pytest.raises(InputError, match=said):
        merged([Path("a"), Path("b")], [first, replace(first, **changed)], Path("out"))


def test_a_condition_of_the_same_name_must_be_the_same(study):
    first = study(conditions=("per_loop-raw",))
    other = replace(first.conditions["per_loop-raw"], model={"supervision": "per_loop", "readout": "power"})
    with pytest.raises(InputError, match="readout of condition per_loop-raw is raw"):
        merged([Path("a"), Path("b")], [first, replace(first, conditions={"per_loop-raw": other})], Path("out"))


def test_a_run_that_two_studies_have_with_other_figures_is_refused(study):
    first = study(conditions=("per_loop-raw",), seeds=(1, 2))
    runs = first.conditions["per_loop-raw"].runs
    other = replace(runs[1], cross_entropy=(*runs[1].cross_entropy[:-1], 2.0))
    theirs = {"per_loop-raw": replace(first.conditions["per_loop-raw"], runs=(other,))}
    both = [first, replace(first, conditions=theirs)]
    with pytest.raises(InputError, match=r"a and b hold per_loop-raw/seed-2 with other figures .cross_entropy is"):
        merged([Path("a"), Path("b")], both, Path("out"))
    lost = replace(runs[0], cross_entropy=(math.nan,) * 4)
    same = replace(first, conditions={"per_loop-raw": replace(first.conditions["per_loop-raw"], runs=(lost,))})
    (part, again) = merged([Path("a"), Path("b")], [same, same], Path("out")).extra["studies"]
    assert (part["left_out"], again["left_out"]) == ([], ["per_loop-raw/seed-1"])


def test_what_an_older_study_does_not_state_is_its_default(study):
    first = study()
    config = {**first.config, "train": {"depth": "fixed", "log_every": 3, "micro_batches": 2}, "init_from": None}
    both = merged([Path("x/a"), Path("y/a")], [first, replace(first, config=config)], Path("out"))
    assert [part["name"] for part in both.extra["studies"]] == ["x/a", "y/a"]


def test_nothing_else_is_written_over(pair, tmp_path):
    for out in (pair[0], pair[1]):
        with pytest.raises(InputError, match="holds no merged report"):
            report_command(*pair, out=out)
    with pytest.raises(InputError, match="given twice"):
        report_command(pair[0], pair[0], out=tmp_path / "new")
