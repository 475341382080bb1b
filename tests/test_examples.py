"""The examples of those who train and of those who deploy, at a tiny size; the others stand beside what they show."""

from dataclasses import replace
from runpy import run_path

import pytest

from loopscale.train import preset_run
from tests.helpers import shapes_unchecked
from tests.workplace import ROOT, SIZES, TEXT


def example(name):
    return run_path(str(ROOT / "examples" / f"{name}.py"))["main"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    (folder / "notes.txt").write_text(TEXT, encoding="utf-8")
    run = preset_run("laptop-rope")
    run = replace(
        run,
        model={**run.model, **SIZES, "max_position_embeddings": 16},
        data=replace(run.data, corpus=str(folder / "notes.txt"), sequence_length=16),
        train=replace(run.train, max_steps=2, batch_size=2, precision="float32"),
    )
    with pytest.MonkeyPatch.context() as patch, shapes_unchecked():
        patch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
        return folder, example("compare_conditions")(str(folder), run)


def test_two_conditions_are_compared_exit_by_exit(compared):
    _, found = compared
    assert [len(curve) for curve, _ in found.values()] == [4, 4]
    assert [report.coordinates["scale"].verdict for _, report in found.values()] == ["visible", "visible"]  # a penalty


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_model_is_deployed(compared, monkeypatch, tmp_path, capsys):
    folder, _ = compared
    monkeypatch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
    path = example("deploy_a_model")(str(folder / "rmsnorm"), str(folder / "notes.txt"), str(tmp_path), limit=4)
    said = capsys.readouterr().out
    assert "are within 1% of the trained depth" in said and "of 4 loops per token" in said and "writes the same" in said
    assert (tmp_path / "model.gguf").stat().st_size > 0 and path.endswith("model.gguf")


def test_every_example_begins_with_what_it_is_for_and_how_it_is_run():
    for path in sorted((ROOT / "examples").glob("*.py")):
        first = path.read_text(encoding="utf-8").split('"""')[1]
        assert f"python examples/{path.name}" in first
