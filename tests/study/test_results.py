import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.errors import InputError
from loopscale.study import Failed, judged, load, save, write_report
from loopscale.study.document import document_of, results_from, run_from
from loopscale.study.grid import stated_fields
from loopscale.study.topics.audit import TOPIC as AUDIT
from tests.helpers import tiny_config


def test_a_study_survives_the_file(study, tmp_path):
    results = study(seeds=(1, 2))
    save(judged(results), tmp_path / "deep" / "results.json")
    assert load(tmp_path / "deep" / "results.json") == results
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"]  # no staging file is left


def test_the_document_has_the_names_that_scripts_use(study):
    document = json.loads(json.dumps(document_of(judged(study()))))
    assert document["schema"] == 1
    assert {"preset", "corpus", "environment", "config", "num_loops", "conditions", "claims"} <= set(document)
    run = document["conditions"]["per_loop-raw"]["runs"][0]
    assert len(run["perplexity"]) == len(run["norm"]) == 4 and len(run["norm_by_depth"]) == 12
    claim = document["claims"][0]
    assert {"id", "statement", "value", "threshold", "published", "verdict", "n", "values"} <= set(claim)


def test_keys_that_nothing_knows_are_kept_at_every_level(measured_study):
    document = document_of(measured_study(conditions=("per_loop-raw",)))
    condition = document["conditions"]["per_loop-raw"]
    document["later"] = [1]
    condition["later"] = {"a": None}
    run = condition["runs"][0]
    run["another"] = {"scale": "blind_spot"}
    run["depth"]["trained"]["exits"][0]["later"] = 1
    run["audit"]["audit"]["coordinates"]["scale"]["half_life"] = 3.5
    again = results_from(document)
    assert again.conditions["per_loop-raw"].model["later"] == {"a": None}
    assert again.runs("per_loop-raw")[0].measured["another"] == {"scale": "blind_spot"}
    assert document_of(again) == document


def test_records_survive_the_file(measured_study, tmp_path):
    results = measured_study()
    save(results, tmp_path / "results.json")
    assert document_of(load(tmp_path / "results.json")) == document_of(results)
    assert load(tmp_path / "results.json") == results


def test_a_measurement_that_failed_is_read_as_such(measured_study):
    document = document_of(measured_study(conditions=("per_loop-raw",)))
    document["conditions"]["per_loop-raw"]["runs"][0]["audit"] = {"failed": "no state is finite."}
    (run,) = results_from(document).runs("per_loop-raw")
    assert run.measured["audit"] == Failed("no state is finite.")
    assert AUDIT.of(run) is None


def test_a_document_whose_every_number_is_lost_is_read_and_reported(measured_study, tmp_path):
    """A run that diverged anywhere: no NaN stops reading, tables, figures, claims or the page."""
    document = document_of(measured_study(seeds=(1, 2)))
    for name in ("per_loop-rmsnorm", "per_loop-raw"):
        runs = document["conditions"][name]["runs"]
        runs[0] = lost_numbers(runs[0])
    results = results_from(document)
    write_report(results, tmp_path)
    assert load(tmp_path / "results.json").runs("per_loop-rmsnorm")[0].diverged
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert "(1 of 2 not finite)" in (tmp_path / "tables" / "table-1.md").read_text(encoding="utf-8")


def lost_numbers(value):
    """Return a document without its measured numbers."""
    if isinstance(value, dict):
        return {key: entry if key == "thresholds" else lost_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [lost_numbers(entry) for entry in value]
    return None if isinstance(value, float) else value


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
        ("[]", "must be an object"),
        ("{}", "lacks 'schema'"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": "1"}', "schema '1'"),
        ('{"schema": 1}', "lacks 'preset'"),
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
    with pytest.raises(InputError, match="is not UTF-8"):
        load(tmp_path / "binary")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)


PLACE = r"results\.json, conditions\.per_loop-raw\.runs\[0\]"


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda run: run.pop("norm"), f"{PLACE} lacks 'norm'"),
        (lambda run: run.update(norm="8"), rf"{PLACE}\.norm must be a list"),
        (lambda run: run.update(norm=[1, 2, 3, "4"]), rf"{PLACE}\.norm\[3\] must be a number"),
        (lambda run: run.update(norm=[1, 2, 3]), "'norm' has 3 values, num_loops is 4"),
        (lambda run: run.update(seed=True), rf"{PLACE}\.seed must be a whole number"),
        (lambda run: run.update(checkpoint=None), rf"{PLACE}\.checkpoint must be text"),
        (lambda run: run.update(audit=[]), r"per_loop-raw, seed 1, audit must be an object"),
        (lambda run: run["audit"].update(verdicts=1), r"seed 1, audit, verdicts must be an object"),
        (lambda run: run["depth"]["trained"].update(exits={}), r"seed 1, depth, trained\.exits must be a list"),
        (lambda run: run["halting"].pop("times"), r"seed 1, halting lacks 'times'"),
    ],
)
def test_a_broken_run_is_named(measured_study, edit, sentence):
    document = document_of(measured_study(conditions=("per_loop-raw",)))
    edit(document["conditions"]["per_loop-raw"]["runs"][0])
    with pytest.raises(InputError, match=sentence):
        results_from(document)


def test_a_corpus_without_its_hash_and_a_study_without_loops_are_refused(study):
    document = document_of(study())
    with pytest.raises(InputError, match="corpus lacks 'sha256'"):
        results_from({**document, "corpus": {"name": "x"}})
    with pytest.raises(InputError, match="num_loops must be at least 1"):
        results_from({**document, "num_loops": 0})


def test_a_condition_states_whatever_its_grid_edits():
    edit = {"supervision": "per_loop", "readout": "raw", "num_stack_layers": 3}
    stated = stated_fields(tiny_config(**edit), edit)
    assert stated == {**edit, "recurrence": "residual", "norm_penalty_coef": 0.0}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
RUN_KEYS = ("seed", "perplexity", "cross_entropy", "norm", "steps", "checkpoint", "audit", "depth")


@given(st.dictionaries(st.sampled_from(RUN_KEYS), json_values) | json_values)
def test_whatever_stands_in_a_run_it_is_read_or_refused_in_a_sentence(document):
    with pytest.raises(InputError):
        run_from(document, "it")  # never complete: train_seconds is not among the keys
