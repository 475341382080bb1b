import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "audit_your_own_model.py"


def test_the_example_runs_and_finds_both_blind_spots(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.count("blind_spot") == 2


def test_the_model_of_the_example_is_short():
    source = EXAMPLE.read_text(encoding="utf-8")
    model = source[source.index("class MyLoopedModel") : source.index("if __name__")]
    assert len(model.strip().splitlines()) <= 30


@pytest.mark.parametrize("ours", ["LoopedForCausalLM", "LoopedConfig"])
def test_it_touches_no_class_of_ours(ours):
    assert ours not in EXAMPLE.read_text(encoding="utf-8")
