import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.errors import InputError
from loopscale.study.claims import judged
from loopscale.study.results import Results, Run, load, save


def test_a_study_survives_the_file(study, tmp_path):
    results = study(seeds=(1, 2))
    save(judged(results), tmp_path / "deep" / "results.json")
    assert load(tmp_path / "deep" / "results.json") == results
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"]  # no staging file is left


def test_the_document_has_the_names_that_scripts_use(study):
    document = json.loads(json.dumps(judged(study()).to_dict()))
    assert document["schema"] == 1
    assert {"preset", "corpus", "environment", "config", "num_loops", "conditions", "claims"} <= set(document)
    run = document["conditions"]["per_loop-raw"]["runs"][0]
    assert len(run["perplexity"]) == len(run["norm"]) == 4 and len(run["norm_by_depth"]) == 12
    claim = document["claims"][0]
    assert {"id", "statement", "value", "threshold", "published", "verdict", "n", "values"} <= set(claim)


def test_keys_of_other_parts_are_kept_at_every_level(study):
    document = study(conditions=("per_loop-raw",)).to_dict()
    condition = document["conditions"]["per_loop-raw"]
    document["later"] = [1]
    condition["later"] = {"a": None}
    condition["runs"][0]["audit"] = {"scale": "blind_spot"}
    again = Results.from_dict(document)
    assert again.runs("per_loop-raw")[0].extra == {"audit": {"scale": "blind_spot"}}
    assert again.to_dict() == document


def test_a_diverged_run_is_null_in_the_file_and_still_diverged_when_read(study, diverge, tmp_path):
    results = diverge(study(), "per_loop-raw")
    save(results, tmp_path / "results.json")
    assert "NaN" not in (text := (tmp_path / "results.json").read_text()) and "Infinity" not in text
    (run,) = load(tmp_path / "results.json").runs("per_loop-raw")
    assert run.diverged and math.isnan(run.perplexity[0]) and run.norm[0] == 8.0
    assert not load(tmp_path / "results.json").runs("per_loop-rmsnorm")[0].diverged


def test_a_failed_write_leaves_the_old_file(study, tmp_path):
    path = tmp_path / "results.json"
    save(study(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(replace(study(), config={"unwritable": object()}), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "not an object"),
        ("{}", "lacks 'schema'"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": "1"}', "'schema' must be a whole number"),
    ],
)
def test_a_foreign_file_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        load(path)


def test_a_missing_or_unreadable_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no results at"):
        load(tmp_path / "results.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "binary")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda run: run.pop("norm"), "condition 'per_loop-raw', run 1 lacks 'norm'"),
        (lambda run: run.update(norm="8"), "'norm' must be a list"),
        (lambda run: run.update(norm=[1, 2, 3, "4"]), "'norm' must be a list of numbers"),
        (lambda run: run.update(norm=[1, 2, 3]), "'norm' has 3 values, num_loops is 4"),
        (lambda run: run.update(norm=[1, 2, 3, 10**400]), "'norm' must be a list of numbers"),
        (lambda run: run.update(seed=True), "'seed' must be a whole number"),
        (lambda run: run.update(train_seconds="long"), "'train_seconds' must be a number"),
        (lambda run: run.update(checkpoint=None), "'checkpoint' must be text"),
    ],
)
def test_a_broken_run_is_named(study, edit, sentence):
    document = study(conditions=("per_loop-raw",)).to_dict()
    edit(document["conditions"]["per_loop-raw"]["runs"][0])
    with pytest.raises(InputError, match=sentence):
        Results.from_dict(document)


def test_a_corpus_without_its_hash_and_a_study_without_loops_are_refused(study):
    document = study().to_dict()
    with pytest.raises(InputError, match="'corpus' lacks 'sha256'"):
        Results.from_dict({**document, "corpus": {"name": "x"}})
    with pytest.raises(InputError, match="'num_loops' must be at least 1"):
        Results.from_dict({**document, "num_loops": 0})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
RUN_KEYS = ("seed", "perplexity", "cross_entropy", "norm", "steps", "checkpoint")


@given(st.dictionaries(st.sampled_from(RUN_KEYS), json_values) | json_values)
def test_whatever_stands_in_a_run_it_is_read_or_refused_in_a_sentence(document):
    with pytest.raises(InputError):
        Run.from_dict(document)  # never complete: train_seconds is not among the keys
